/* trailsift._native._groups: rows that are equal (summary lines), the values that rows use, and ids seen before.
 *
 * The Python twins are in columns/group_by.py, columns/summarize.py, lake/parquet.py and lake/dedup.py. All arrays come
 * in as buffers, which are locked while they are used, and go out as bytes.
 */
#include "arrays.h"
#include "hash.h"

/* Keys may come out of a log (hash.h). */
static Secret secret;

/* Number the keys in the order in which they first occur. Return how many different ones there are, -1 with an
 * exception set. `firsts`: the row in which each first occurs; the caller frees it. */
static Py_ssize_t number_keys(const int64_t *keys, size_t rows, int64_t *numbers, int64_t **firsts) {
    size_t room = 64;
    while (room < rows / 2) room *= 2;
    Py_ssize_t count = 0;
    int64_t *slots = NULL;
    *firsts = PyMem_Malloc((rows + 1) * sizeof **firsts);
    for (;;) {
        /* 0 is an empty slot, any other number one more than a key's. */
        PyMem_Free(slots);
        slots = PyMem_Calloc(room, sizeof *slots);
        if (*firsts == NULL || slots == NULL) goto failed;
        count = 0;
        size_t row = 0;
        for (; row < rows && (size_t)count * 2 < room; row++) {
            size_t slot = hash_number(&secret, (uint64_t)keys[row]) & (room - 1);
            while (slots[slot] && keys[(*firsts)[slots[slot] - 1]] != keys[row]) slot = (slot + 1) & (room - 1);
            if (!slots[slot]) {
                (*firsts)[count] = (int64_t)row;
                slots[slot] = ++count;
            }
            numbers[row] = slots[slot] - 1;
        }
        if (row == rows) break;
        room *= 4;
    }
    PyMem_Free(slots);
    return count;
failed:
    PyMem_Free(slots);
    PyErr_NoMemory();
    return -1;
}

PyDoc_STRVAR(
    groups_doc,
    "groups(keys)\n--\n\n"
    "Group rows by equal keys (64-bit numbers). Return the rows in the order of their groups, where each group\n"
    "starts there, and the group of each row; all as 64-bit numbers.");

static PyObject *groups(PyObject *Py_UNUSED(module), PyObject *argument) {
    Py_buffer keys;
    if (PyObject_GetBuffer(argument, &keys, PyBUF_SIMPLE) < 0) return NULL;
    size_t rows = (size_t)keys.len / 8;
    PyObject *order = NULL, *starts = NULL, *group = NULL, *answer = NULL;
    int64_t *firsts = NULL;
    if (!has_numbers(&keys, 8)) goto done;
    order = new_words(rows);
    group = new_words(rows);
    if (order == NULL || group == NULL) goto done;
    int64_t *numbers = words_of(group);
    Py_ssize_t count = number_keys(keys.buf, rows, numbers, &firsts);
    if (count < 0 || (starts = new_words((size_t)count)) == NULL) goto done;
    /* From here on `firsts` is the place of each group's next row. */
    int64_t *start = words_of(starts), *next = firsts;
    memset(start, 0, (size_t)count * 8);
    for (size_t row = 0; row < rows; row++) start[numbers[row]]++;
    for (int64_t at = 0, before = 0; at < count; at++) {
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

/* Return whether a row's group is one of `groups`; else ValueError is set. */
static inline int is_group(int64_t group, Py_ssize_t groups) {
    if (group >= 0 && group < groups) return 1;
    PyErr_SetString(PyExc_ValueError, "a group out of range");
    return 0;
}

PyDoc_STRVAR(
    by_group_doc,
    "by_group(group, groups)\n--\n\n"
    "Return the rows in the order of their groups (64-bit numbers below `groups`). Rows of one group keep their\n"
    "order.");

static PyObject *by_group(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer buffer;
    Py_ssize_t groups;
    if (!PyArg_ParseTuple(arguments, "y*n:by_group", &buffer, &groups)) return NULL;
    const int64_t *group = buffer.buf;
    size_t rows = (size_t)buffer.len / 8;
    int64_t *next = NULL;
    PyObject *order = NULL;
    if (is_size(groups) && has_numbers(&buffer, 8)) {
        next = PyMem_Calloc((size_t)groups + 1, sizeof *next);
        order = next == NULL ? PyErr_NoMemory() : new_words(rows);
    }
    for (size_t row = 0; order != NULL && row < rows; row++) {
        if (is_group(group[row], groups))
            next[group[row] + 1]++;
        else
            Py_CLEAR(order);
    }
    if (order != NULL) {
        for (Py_ssize_t at = 0; at < groups; at++) next[at + 1] += next[at];
        for (size_t row = 0; row < rows; row++) words_of(order)[next[group[row]]++] = (int64_t)row;
    }
    PyMem_Free(next);
    PyBuffer_Release(&buffer);
    return order;
}

enum { COUNT, SUM_IN, SUM_OUT, FIRST, LAST, TOTALS };

/* Return 0, or -1 with an exception set. */
static int add_up(const Py_buffer columns[4], Py_ssize_t groups, PyObject *const totals[TOTALS]) {
    const int64_t *group = columns[0].buf, *in = columns[1].buf, *out = columns[2].buf, *time = columns[3].buf;
    int64_t *count = words_of(totals[COUNT]), *ins = words_of(totals[SUM_IN]), *outs = words_of(totals[SUM_OUT]);
    int64_t *first = words_of(totals[FIRST]), *last = words_of(totals[LAST]);
    for (Py_ssize_t at = 0; at < groups; at++) {
        count[at] = ins[at] = outs[at] = 0;
        first[at] = INT64_MAX;
        last[at] = INT64_MIN;
    }
    for (Py_ssize_t row = 0; row < columns[0].len / 8; row++) {
        int64_t at = group[row];
        if (!is_group(at, groups)) return -1;
        count[at]++;
        /* Modulo 2^64, as NumPy adds. */
        ins[at] = (int64_t)((uint64_t)ins[at] + (uint64_t)in[row]);
        outs[at] = (int64_t)((uint64_t)outs[at] + (uint64_t)out[row]);
        if (time[row] < first[at]) first[at] = time[row];
        if (time[row] > last[at]) last[at] = time[row];
    }
    return 0;
}

PyDoc_STRVAR(totals_doc,
             "totals(group, groups, bytes_in, bytes_out, time)\n--\n\n"
             "Return for each group its number of rows, the sums of two columns, and the minimum and the maximum of a\n"
             "third. All columns are of 64-bit numbers, and so are the results.");

static PyObject *totals(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer columns[4];
    Py_ssize_t groups;
    if (!PyArg_ParseTuple(arguments, "y*ny*y*y*:totals", &columns[0], &groups, &columns[1], &columns[2], &columns[3]))
        return NULL;
    PyObject *totals[TOTALS] = {NULL}, *answer = NULL;
    int ready = is_size(groups) && have_rows(columns, 4, 8, (size_t)columns[0].len / 8);
    for (int part = 0; ready && part < TOTALS; part++) ready = (totals[part] = new_words((size_t)groups)) != NULL;
    if (ready && add_up(columns, groups, totals) == 0)
        answer = PyTuple_Pack(TOTALS, totals[COUNT], totals[SUM_IN], totals[SUM_OUT], totals[FIRST], totals[LAST]);
    for (int part = 0; part < TOTALS; part++) Py_XDECREF(totals[part]);
    for (int part = 0; part < 4; part++) PyBuffer_Release(&columns[part]);
    return answer;
}

/* Return whether the text of one code is below that of another, byte by byte. */
static int is_text_below(const Texts *texts, int64_t code, int64_t other) {
    const int32_t *ends = texts->ends;
    size_t size = (size_t)(ends[code] - ends[code - 1]), other_size = (size_t)(ends[other] - ends[other - 1]);
    int order =
        memcmp(texts->text + ends[code - 1], texts->text + ends[other - 1], size < other_size ? size : other_size);
    return order < 0 || (order == 0 && size < other_size);
}

PyDoc_STRVAR(
    smallest_doc,
    "smallest(offsets, text, codes, group, groups)\n--\n\n"
    "Return for each group the code whose text has the smallest bytes, 0 if all codes are 0. Code n > 0 stands\n"
    "for the bytes of `text` from offsets[n - 1] to offsets[n] (32-bit); codes and groups of the rows are 64-bit\n"
    "numbers.");

static PyObject *smallest(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *offsets, *bytes, *answer = NULL;
    Py_buffer columns[2];
    Texts texts;
    Py_ssize_t groups;
    if (!PyArg_ParseTuple(arguments, "OOy*y*n:smallest", &offsets, &bytes, &columns[0], &columns[1], &groups))
        return NULL;
    if (texts_of(offsets, bytes, &texts) == 0) {
        size_t rows = (size_t)columns[0].len / 8;
        if (is_size(groups) && have_rows(columns, 2, 8, rows)) answer = new_words((size_t)groups);
        if (answer != NULL) memset(words_of(answer), 0, (size_t)groups * 8);
        const int64_t *codes = columns[0].buf, *group = columns[1].buf;
        for (size_t row = 0; answer != NULL && row < rows; row++) {
            int64_t code = codes[row];
            if (code < 0 || code > texts.count) {
                PyErr_SetString(PyExc_ValueError, "a code out of range");
                Py_CLEAR(answer);
            } else if (!is_group(group[row], groups)) {
                Py_CLEAR(answer);
            } else {
                int64_t *best = &words_of(answer)[group[row]];
                if (code != 0 && code != *best && (*best == 0 || is_text_below(&texts, code, *best))) *best = code;
            }
        }
        release_texts(&texts);
    }
    PyBuffer_Release(&columns[0]);
    PyBuffer_Release(&columns[1]);
    return answer;
}

PyDoc_STRVAR(
    trimmed_doc,
    "trimmed(codes, size)\n--\n\n"
    "Renumber codes (32-bit, below `size`; less than 0 for none) so that only those that occur have a number.\n"
    "Return the new codes, and the old code of each (64-bit). Return None if all codes occur.");

static PyObject *trimmed(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer buffer;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "y*n:trimmed", &buffer, &size)) return NULL;
    const int32_t *codes = buffer.buf;
    Py_ssize_t rows = buffer.len / 4, used = 0;
    int32_t *place = NULL;
    PyObject *renumbered = NULL, *which = NULL, *answer = NULL;
    if (!is_size(size) || !has_numbers(&buffer, 4)) goto done;
    place = PyMem_Calloc((size_t)size + 1, sizeof *place);
    if (place == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        if (codes[row] >= size) {
            PyErr_SetString(PyExc_ValueError, "a code out of range");
            goto done;
        }
        if (codes[row] >= 0) place[codes[row]] = 1;
    }
    for (Py_ssize_t code = 0; code < size; code++) used += place[code];
    if (used == size) {
        answer = Py_NewRef(Py_None);
        goto done;
    }
    renumbered = PyBytes_FromStringAndSize(NULL, rows * 4);
    which = new_words((size_t)used);
    if (renumbered == NULL || which == NULL) goto done;
    for (Py_ssize_t code = 0, at = 0; code < size; code++) {
        if (!place[code]) continue;
        words_of(which)[at] = code;
        place[code] = (int32_t)at++;
    }
    int32_t *out = (int32_t *)PyBytes_AS_STRING(renumbered);
    for (Py_ssize_t row = 0; row < rows; row++) out[row] = codes[row] < 0 ? 0 : place[codes[row]];
    answer = PyTuple_Pack(2, renumbered, which);
done:
    PyMem_Free(place);
    Py_XDECREF(renumbered);
    Py_XDECREF(which);
    PyBuffer_Release(&buffer);
    return answer;
}

/* Ids of two 64-bit words, in order. */
typedef struct {
    const uint64_t *high, *low;
    size_t size;
} Ids;

static int is_below(const Ids *ids, size_t at, uint64_t high, uint64_t low) {
    return ids->high[at] < high || (ids->high[at] == high && ids->low[at] < low);
}

/* Return the first place from `from` on that is not below an id: by steps that double, then by halves. */
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
        if (is_below(ids, middle, high, low))
            from = middle + 1;
        else
            end = middle;
    }
    return from;
}

/* Read ids from the buffers of their high and their low words. Return whether they have as many of both; else
 * ValueError is set. */
static int ids_of(const Py_buffer words[2], Ids *ids) {
    *ids = (Ids){words[0].buf, words[1].buf, (size_t)words[0].len / 8};
    return have_rows(words, 2, 8, ids->size);
}

PyDoc_STRVAR(
    places_doc,
    "places(high, low, other_high, other_low)\n--\n\n"
    "Return the place of each of the other ids among the first ones, or -1. Ids are two 64-bit words each, in\n"
    "order.");

static PyObject *places(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer parts[4];
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*:places", &parts[0], &parts[1], &parts[2], &parts[3])) return NULL;
    Ids ids, others;
    PyObject *answer = NULL;
    if (ids_of(parts, &ids) && ids_of(parts + 2, &others)) answer = new_words(others.size);
    if (answer != NULL) {
        for (size_t row = 0, at = 0; row < others.size; row++) {
            at = not_below(&ids, at, others.high[row], others.low[row]);
            int is_equal = at < ids.size && ids.high[at] == others.high[row] && ids.low[at] == others.low[row];
            words_of(answer)[row] = is_equal ? (int64_t)at : -1;
        }
    }
    for (int part = 0; part < 4; part++) PyBuffer_Release(&parts[part]);
    return answer;
}

/* Merge two lists of ids and their checksums into arrays with room for both. */
static void merge(const Ids lists[2], const uint32_t *const checks[2], uint64_t *high, uint64_t *low, uint32_t *check) {
    size_t next[2] = {0, 0}, rows = lists[0].size + lists[1].size;
    for (size_t at = 0; at < rows; at++) {
        int which =
            next[0] == lists[0].size ||
            (next[1] < lists[1].size && is_below(&lists[1], next[1], lists[0].high[next[0]], lists[0].low[next[0]]));
        size_t place = next[which]++;
        high[at] = lists[which].high[place];
        low[at] = lists[which].low[place];
        check[at] = checks[which][place];
    }
}

PyDoc_STRVAR(
    merged_doc,
    "merged(high, low, check, other_high, other_low, other_check)\n--\n\n"
    "Merge two lists of ids in order (two 64-bit words and a 32-bit checksum each). Return the three columns of\n"
    "the merged list.");

static PyObject *merged(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer parts[6];
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*y*y*:merged", &parts[0], &parts[1], &parts[2], &parts[3], &parts[4],
                          &parts[5]))
        return NULL;
    Ids lists[2];
    PyObject *high = NULL, *low = NULL, *check = NULL, *answer = NULL;
    if (!ids_of(parts, &lists[0]) || !have_rows(&parts[2], 1, 4, lists[0].size) || !ids_of(parts + 3, &lists[1]) ||
        !have_rows(&parts[5], 1, 4, lists[1].size))
        goto done;
    size_t rows = lists[0].size + lists[1].size;
    high = new_words(rows);
    low = new_words(rows);
    check = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)rows * 4);
    if (high != NULL && low != NULL && check != NULL) {
        const uint32_t *const checks[2] = {parts[2].buf, parts[5].buf};
        uint64_t *highs = (uint64_t *)words_of(high), *lows = (uint64_t *)words_of(low);
        uint32_t *checked = (uint32_t *)PyBytes_AS_STRING(check);
        /* The buffers are locked, and nobody else has the results yet. */
        Py_BEGIN_ALLOW_THREADS;
        merge(lists, checks, highs, lows, checked);
        Py_END_ALLOW_THREADS;
        answer = PyTuple_Pack(3, high, low, check);
    }
done:
    Py_XDECREF(high);
    Py_XDECREF(low);
    Py_XDECREF(check);
    for (int part = 0; part < 6; part++) PyBuffer_Release(&parts[part]);
    return answer;
}

static PyMethodDef METHODS[] = {
    {"by_group", by_group, METH_VARARGS, by_group_doc}, {"merged", merged, METH_VARARGS, merged_doc},
    {"places", places, METH_VARARGS, places_doc},       {"groups", groups, METH_O, groups_doc},
    {"trimmed", trimmed, METH_VARARGS, trimmed_doc},    {"smallest", smallest, METH_VARARGS, smallest_doc},
    {"totals", totals, METH_VARARGS, totals_doc},       {NULL, NULL, 0, NULL},
};

static int exec(PyObject *Py_UNUSED(module)) {
    /* Once per process: a table may be in use in another interpreter. */
    return secret.word[0] == 0 ? draw_secret(&secret) : 0;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, exec}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trailsift._native._groups",
    .m_doc = "Groups rows and merges ids.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__groups(void) { return PyModuleDef_Init(&MODULE); }
