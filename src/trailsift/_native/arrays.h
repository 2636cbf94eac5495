/* Arrays that Python code hands over as buffers: of numbers, and of texts as Arrow has them. What is in them is checked
 * here, so that a wrong number raises ValueError and never leads outside of a buffer. */
#ifndef TRAILSIFT_ARRAYS_H
#define TRAILSIFT_ARRAYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Return whether a buffer holds numbers of `width` bytes, whole and aligned; else ValueError is set. */
static inline int has_numbers(const Py_buffer *buffer, size_t width) {
    if ((size_t)buffer->len % width == 0 && (buffer->len == 0 || (uintptr_t)buffer->buf % width == 0)) return 1;
    PyErr_Format(PyExc_ValueError, "a buffer does not hold %zu-byte numbers", width);
    return 0;
}

/* As has_numbers, for several buffers with `rows` numbers each. */
static inline int have_rows(const Py_buffer *buffers, int count, size_t width, size_t rows) {
    for (int at = 0; at < count; at++) {
        if (!has_numbers(&buffers[at], width)) return 0;
        if ((size_t)buffers[at].len / width == rows) continue;
        PyErr_SetString(PyExc_ValueError, "columns of different lengths");
        return 0;
    }
    return 1;
}

/* Return whether a number of groups or of codes is one; else ValueError is set. */
static inline int is_size(Py_ssize_t size) {
    if (size >= 0 && size <= PY_SSIZE_T_MAX / 16) return 1;
    PyErr_SetString(PyExc_ValueError, "a size out of range");
    return 0;
}

/* Return new bytes for `count` numbers of 64 bits, NULL with an exception set. */
static inline PyObject *new_words(size_t count) { return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * 8)); }

static inline int64_t *words_of(PyObject *bytes) { return (int64_t *)PyBytes_AS_STRING(bytes); }

/* Texts as Arrow has them: text n is the bytes from ends[n] to ends[n + 1]. */
typedef struct {
    Py_buffer offsets, bytes;
    const int32_t *ends;
    const char *text;
    Py_ssize_t count;
} Texts;

static inline void release_texts(Texts *texts) {
    PyBuffer_Release(&texts->offsets);
    PyBuffer_Release(&texts->bytes);
}

/* Check the buffers of texts. Return 0, or -1 with an exception set and the buffers released. */
static inline int check_texts(Texts *texts) {
    texts->ends = texts->offsets.buf;
    texts->text = texts->bytes.len ? texts->bytes.buf : "";
    texts->count = texts->offsets.len / 4 - 1;
    int valid = has_numbers(&texts->offsets, 4);
    if (valid && texts->count < 0) {
        PyErr_SetString(PyExc_ValueError, "texts need one offset more than there are texts");
        valid = 0;
    }
    for (Py_ssize_t at = 0; valid && at < texts->count; at++) {
        valid =
            texts->ends[at] >= 0 && texts->ends[at] <= texts->ends[at + 1] && texts->ends[at + 1] <= texts->bytes.len;
        if (!valid) PyErr_SetString(PyExc_ValueError, "an offset points outside of the texts");
    }
    if (!valid) release_texts(texts);
    return valid ? 0 : -1;
}

/* Lock the buffers of texts. Return 0, or -1 with an exception set. */
static inline int texts_of(PyObject *offsets, PyObject *bytes, Texts *texts) {
    if (PyObject_GetBuffer(offsets, &texts->offsets, PyBUF_SIMPLE) < 0) return -1;
    if (PyObject_GetBuffer(bytes, &texts->bytes, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&texts->offsets);
        return -1;
    }
    return check_texts(texts);
}

#endif
