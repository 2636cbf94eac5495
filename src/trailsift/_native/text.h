/* Stretches of text and growing memory, for the files of the scanner. */
#ifndef TRAILSIFT_TEXT_H
#define TRAILSIFT_TEXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Part of a text that somebody else owns. It has no terminator: nothing may be read behind its last byte. */
typedef struct {
    const char *at;
    size_t size;
} Slice;

static inline int is(Slice slice, const char *text, size_t size) {
    return slice.size == size && memcmp(slice.at, text, size) == 0;
}
#define IS(slice, text) is(slice, text, sizeof text - 1)

/* The byte at `at`, or 0 at the end of the text. No JSON token begins with 0, so the end needs no case of its own. */
static inline char peek(const char *at, const char *end) { return at < end ? *at : 0; }

/* Return whether the text from `at` to `end` begins with a literal. */
#define STARTS(at, end, text) ((size_t)((end) - (at)) >= sizeof text - 1 && memcmp(at, text, sizeof text - 1) == 0)

typedef struct {
    char *at;
    size_t size, room;
} Buffer;

/* Return where `size` more bytes can be written, or NULL with MemoryError set. */
static inline char *reserve(Buffer *buffer, size_t size) {
    if (buffer->at == NULL || size > buffer->room - buffer->size) {
        size_t room = buffer->room ? buffer->room : 4096;
        if (size > SIZE_MAX / 4 - buffer->size) {
            PyErr_NoMemory();
            return NULL;
        }
        while (room < buffer->size + size) room *= 2;
        char *at = PyMem_Realloc(buffer->at, room);
        if (at == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        buffer->at = at;
        buffer->room = room;
    }
    return buffer->at + buffer->size;
}

/* Return 0, or -1 with MemoryError set. */
static inline int append(Buffer *buffer, const void *from, size_t size) {
    char *to = reserve(buffer, size);
    if (to == NULL) return -1;
    /* An empty slice may have no address at all. */
    if (size) memcpy(to, from, size);
    buffer->size += size;
    return 0;
}

static inline int append_byte(Buffer *buffer, char byte) { return append(buffer, &byte, 1); }

static inline void release(Buffer *buffer) {
    PyMem_Free(buffer->at);
    memset(buffer, 0, sizeof *buffer);
}

#endif
