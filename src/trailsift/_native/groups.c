/* Rows that are equal, for summary lines, the values that rows use, and ids seen before. An accelerator of groups.py,
 * store/files.py and store/seen.py: the same comes out without it, more slowly. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

static PyObject *new_words(size_t count) { return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * 8)); }

static int64_t *words_of(PyObject *bytes) { return (int64_t *)PyBytes_AS_STRING(bytes); }

/* Gives each key a number, in the order in which the keys are met; how many there are, or -1. */
static Py_ssize_t number(const int64_t *keys, size_t rows, int64_t *numbers, int64_t **firsts) {
    size_t room = 64;
    while (room < rows / 2) room *= 2;
    Py_ssize_t found = 0;
    int64_t *slots = NULL;
    *firsts = PyMem_Malloc((rows + 1) * sizeof **firsts);
    for (;;) {
        /* 0 is an empty slot, any other number one more than a group's. */
        PyMem_Free(slots);
        slots = PyMem_Calloc(room, sizeof *slots);
        if (*firsts == NULL || slots == NULL) goto failed;
        found = 0;
        size_t row = 0;
        for (; row < rows && (size_t)found * 2 < room; row++) {
            uint64_t hash = (uint64_t)keys[row] * 0x9E3779B97F4A7C15ULL;
            size_t slot = (hash ^ hash >> 32) & (room - 1);
            while (slots[slot] && keys[(*firsts)[slots[slot] - 1]] != keys[row]) slot = (slot + 1) & (room - 1);
            if (!slots[slot]) {
                (*firsts)[found] = (int64_t)row;
                slots[slot] = ++found;
            }
            numbers[row] = slots[slot] - 1;
        }
        if (row == rows) break;
        room *= 4;
    }
    PyMem_Free(slots);
    return found;
failed:
    PyMem_Free(slots);
    PyErr_NoMemory();
    return -1;
}

PyDoc_STRVAR(groups_doc,
             "groups(keys)\n--\n\n"
             "Rows by equal keys (64-bit numbers): the rows in the order of their groups, where each group starts there,\n"
             "and the group of each row; as 64-bit numbers.");

static PyObject *groups(PyObject *Py_UNUSED(module), PyObject *argument) {
    Py_buffer keys;
    if (PyObject_GetBuffer(argument, &keys, PyBUF_SIMPLE) < 0) return NULL;
    size_t rows = (size_t)keys.len / 8;
    PyObject *order = new_words(rows), *starts = NULL, *group = new_words(rows), *answer = NULL;
    int64_t *firsts = NULL;
    if (order == NULL || group == NULL) goto done;
    int64_t *numbers = words_of(group);
    Py_ssize_t found = number(keys.buf, rows, numbers, &firsts);
    if (found < 0 || (starts = new_words((size_t)found)) == NULL) goto done;
    /* `firsts` becomes the place of each group's next row. */
    int64_t *start = words_of(starts), *next = firsts;
    memset(start, 0, (size_t)found * 8);
    for (size_t row = 0; row < rows; row++) start[numbers[row]]++;
    for (int64_t at = 0, before = 0; at < found; at++) {
        int64_t size = start[at];
        start[at] = next[at] = before;
        before += size;
    }
    for (size_t row = 0; row < rows; row++) words_of(order)[next[numbers[row]]++] = (int64_t)row;
    answer = PyTuple_Pack(3, order, starts, group);
done:
    PyMem_Free(firsts);
    Py_XDECREF(order);
    Py_XDECREF(starts);
    Py_XDECREF(group);
    PyBuffer_Release(&keys);
    return answer;
}

PyDoc_STRVAR(by_group_doc,
             "by_group(group, groups)\n--\n\n"
             "The rows in the order of their groups (64-bit numbers below `groups`), those of a group as they stand.");

static PyObject *by_group(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer given;
    Py_ssize_t groups;
    if (!PyArg_ParseTuple(arguments, "y*n:by_group", &given, &groups)) return NULL;
    const int64_t *group = given.buf;
    size_t rows = (size_t)given.len / 8;
    int64_t *next = PyMem_Calloc((size_t)groups + 1, sizeof *next);
    PyObject *order = next == NULL ? PyErr_NoMemory() : new_words(rows);
    for (size_t row = 0; order != NULL && row < rows; row++) {
        if (group[row] < 0 || group[row] >= groups) {
            PyErr_SetString(PyExc_ValueError, "a group that there is not");
            Py_CLEAR(order);
            break;
        }
        next[group[row] + 1]++;
    }
    if (order != NULL) {
        for (Py_ssize_t at = 0; at < groups; at++) next[at + 1] += next[at];
        for (size_t row = 0; row < rows; row++) words_of(order)[next[group[row]]++] = (int64_t)row;
    }
    PyMem_Free(next);
    PyBuffer_Release(&given);
    return order;
}

PyDoc_STRVAR(totals_doc,
             "totals(group, groups, bytes_in, bytes_out, time)\n--\n\n"
             "Of each group how many rows it has, the sums of two columns, and the smallest and the largest of a third;\n"
             "all of 64-bit numbers, and so is what comes out.");

static PyObject *totals(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer given[4];
    Py_ssize_t groups;
    if (!PyArg_ParseTuple(arguments, "y*ny*y*y*:totals", &given[0], &groups, &given[1], &given[2], &given[3])) return NULL;
    PyObject *made[5], *answer = NULL;
    int ready = 1;
    for (int part = 0; part < 5; part++) ready &= (made[part] = new_words((size_t)groups)) != NULL;
    for (int part = 1; part < 4; part++)
        if (given[part].len != given[0].len) {
            PyErr_SetString(PyExc_ValueError, "columns of different sizes");
            ready = 0;
        }
    if (ready) {
        const int64_t *group = given[0].buf, *in = given[1].buf, *out = given[2].buf, *time = given[3].buf;
        int64_t *count = words_of(made[0]), *ins = words_of(made[1]), *outs = words_of(made[2]);
        int64_t *first = words_of(made[3]), *last = words_of(made[4]);
        for (Py_ssize_t at = 0; at < groups; at++) {
            count[at] = ins[at] = outs[at] = 0;
            first[at] = INT64_MAX;
            last[at] = INT64_MIN;
        }
        for (Py_ssize_t row = 0; row < given[0].len / 8; row++) {
            int64_t at = group[row];
            if (at < 0 || at >= groups) {
                PyErr_SetString(PyExc_ValueError, "a group that there is not");
                ready = 0;
                break;
            }
            count[at]++;
            /* Modulo 2^64, as NumPy adds. */
            ins[at] = (int64_t)((uint64_t)ins[at] + (uint64_t)in[row]);
            outs[at] = (int64_t)((uint64_t)outs[at] + (uint64_t)out[row]);
            if (time[row] < first[at]) first[at] = time[row];
            if (time[row] > last[at]) last[at] = time[row];
        }
    }
    if (ready) answer = PyTuple_Pack(5, made[0], made[1], made[2], made[3], made[4]);
    for (int part = 0; part < 5; part++) Py_XDECREF(made[part]);
    for (int part = 0; part < 4; part++) PyBuffer_Release(&given[part]);
    return answer;
}

PyDoc_STRVAR(smallest_doc,
             "smallest(offsets, text, codes, group, groups)\n--\n\n"
             "Of each group the code whose text has the smallest bytes, 0 where all are 0. Code n > 0 stands for the bytes\n"
             "of `text` from offsets[n - 1] to offsets[n] (32-bit); codes and groups of the rows are 64-bit numbers.");

static PyObject *smallest(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer offsets, text, codes, group;
    Py_ssize_t groups;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*n:smallest", &offsets, &text, &codes, &group, &groups)) return NULL;
    const int32_t *ends = offsets.buf;
    const char *bytes = text.buf;
    size_t rows = (size_t)codes.len / 8;
    PyObject *found = new_words((size_t)groups);
    if (found != NULL) {
        int64_t *best = words_of(found);
        memset(best, 0, (size_t)groups * 8);
        for (size_t row = 0; row < rows; row++) {
            int64_t code = ((const int64_t *)codes.buf)[row], *mine = &best[((const int64_t *)group.buf)[row]];
            if (code == 0 || code == *mine) continue;
            if (*mine) {
                size_t size = (size_t)(ends[code] - ends[code - 1]), other = (size_t)(ends[*mine] - ends[*mine - 1]);
                int order = memcmp(bytes + ends[code - 1], bytes + ends[*mine - 1], size < other ? size : other);
                if (order > 0 || (order == 0 && size >= other)) continue;
            }
            *mine = code;
        }
    }
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&text);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&group);
    return found;
}

PyDoc_STRVAR(trimmed_doc,
             "trimmed(codes, size)\n--\n\n"
             "Codes (32-bit, below `size`; less than 0 for none) counted anew over those that occur, and which these are\n"
             "in their order (64-bit). None where all occur.");

static PyObject *trimmed(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer given;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "y*n:trimmed", &given, &size)) return NULL;
    const int32_t *codes = given.buf;
    Py_ssize_t rows = given.len / 4, used = 0;
    int32_t *place = PyMem_Calloc((size_t)size + 1, sizeof *place);
    PyObject *fresh = NULL, *which = NULL, *answer = NULL;
    if (place == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        if (codes[row] >= size) {
            PyErr_SetString(PyExc_ValueError, "a code that stands for nothing");
            goto done;
        }
        if (codes[row] >= 0) place[codes[row]] = 1;
    }
    for (Py_ssize_t code = 0; code < size; code++) used += place[code];
    if (used == size) {
        answer = Py_NewRef(Py_None);
        goto done;
    }
    fresh = PyBytes_FromStringAndSize(NULL, rows * 4);
    which = new_words((size_t)used);
    if (fresh == NULL || which == NULL) goto done;
    for (Py_ssize_t code = 0, at = 0; code < size; code++) {
        if (!place[code]) continue;
        words_of(which)[at] = code;
        place[code] = (int32_t)at++;
    }
    int32_t *out = (int32_t *)PyBytes_AS_STRING(fresh);
    for (Py_ssize_t row = 0; row < rows; row++) out[row] = codes[row] < 0 ? 0 : place[codes[row]];
    answer = PyTuple_Pack(2, fresh, which);
done:
    PyMem_Free(place);
    Py_XDECREF(fresh);
    Py_XDECREF(which);
    PyBuffer_Release(&given);
    return answer;
}

typedef struct {
    const uint64_t *high, *low;
    size_t size;
} Ids;

static int is_below(const Ids *ids, size_t at, uint64_t high, uint64_t low) {
    return ids->high[at] < high || (ids->high[at] == high && ids->low[at] < low);
}

/* The first place from `from` on that is not below an id: by steps that double, then by halves. */
static size_t not_below(const Ids *ids, size_t from, uint64_t high, uint64_t low) {
    size_t step = 1, end = from;
    while (end < ids->size && is_below(ids, end, high, low)) {
        from = end + 1;
        end += step;
        step *= 2;
    }
    if (end > ids->size) end = ids->size;
    while (from < end) {
        size_t middle = from + (end - from) / 2;
        if (is_below(ids, middle, high, low)) from = middle + 1;
        else end = middle;
    }
    return from;
}

PyDoc_STRVAR(places_doc,
             "places(high, low, other_high, other_low)\n--\n\n"
             "Where each of the other ids stands among the first ones, or -1. Ids are two 64-bit words each, in order.");

static PyObject *places(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer parts[4];
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*:places", &parts[0], &parts[1], &parts[2], &parts[3])) return NULL;
    Ids ids = {parts[0].buf, parts[1].buf, (size_t)parts[0].len / 8};
    Ids other = {parts[2].buf, parts[3].buf, (size_t)parts[2].len / 8};
    PyObject *found = new_words(other.size);
    if (found != NULL) {
        for (size_t row = 0, at = 0; row < other.size; row++) {
            at = not_below(&ids, at, other.high[row], other.low[row]);
            int equal = at < ids.size && ids.high[at] == other.high[row] && ids.low[at] == other.low[row];
            words_of(found)[row] = equal ? (int64_t)at : -1;
        }
    }
    for (int part = 0; part < 4; part++) PyBuffer_Release(&parts[part]);
    return found;
}

PyDoc_STRVAR(merged_doc,
             "merged(high, low, check, other_high, other_low, other_check)\n--\n\n"
             "Two lists of ids in order (two 64-bit words, and a 32-bit checksum each) as one, in three parts.");

static PyObject *merged(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer parts[6];
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*y*y*:merged", &parts[0], &parts[1], &parts[2], &parts[3], &parts[4],
                          &parts[5]))
        return NULL;
    Ids one = {parts[0].buf, parts[1].buf, (size_t)parts[0].len / 8};
    Ids two = {parts[3].buf, parts[4].buf, (size_t)parts[3].len / 8};
    const uint32_t *checks = parts[2].buf, *others = parts[5].buf;
    size_t rows = one.size + two.size;
    PyObject *high = new_words(rows), *low = new_words(rows), *check = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)rows * 4);
    PyObject *answer = NULL;
    if (high != NULL && low != NULL && check != NULL) {
        uint64_t *highs = (uint64_t *)words_of(high), *lows = (uint64_t *)words_of(low);
        uint32_t *checked = (uint32_t *)PyBytes_AS_STRING(check);
        Py_BEGIN_ALLOW_THREADS
        for (size_t at = 0, mine = 0, theirs = 0; at < rows; at++) {
            int take_mine = theirs == two.size ||
                            (mine < one.size && !is_below(&two, theirs, one.high[mine], one.low[mine]));
            const Ids *from = take_mine ? &one : &two;
            size_t place = take_mine ? mine++ : theirs++;
            highs[at] = from->high[place];
            lows[at] = from->low[place];
            checked[at] = (take_mine ? checks : others)[place];
        }
        Py_END_ALLOW_THREADS
        answer = PyTuple_Pack(3, high, low, check);
    }
    Py_XDECREF(high);
    Py_XDECREF(low);
    Py_XDECREF(check);
    for (int part = 0; part < 6; part++) PyBuffer_Release(&parts[part]);
    return answer;
}

static PyMethodDef METHODS[] = {
    {"by_group", by_group, METH_VARARGS, by_group_doc},
    {"merged", merged, METH_VARARGS, merged_doc},
    {"places", places, METH_VARARGS, places_doc},
    {"groups", groups, METH_O, groups_doc},
    {"trimmed", trimmed, METH_VARARGS, trimmed_doc},
    {"smallest", smallest, METH_VARARGS, smallest_doc},
    {"totals", totals, METH_VARARGS, totals_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "trailsift._native._groups", .m_doc = "See groups.c.", .m_size = -1, .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__groups(void) { return PyModule_Create(&MODULE); }
