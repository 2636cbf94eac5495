/* The rows that were read, column by column, in the layout of Arrow. */
#include "scanner.h"

static const char *const TEXT_NAMES[TEXTS] = {
    "event_id",   "request_id",         "error_message",         "shared_event_id",
    "object_key", "request_parameters", "additional_event_data", "response_elements",
};
static const char *const NUMBER_NAMES[NUMBERS] = {"who", "place", "what",     "event_time", "object",
                                                  "id",  "check", "bytes_in", "bytes_out"};
static const size_t WIDTHS[NUMBERS] = {4, 4, 4, 8, 4, 16, 4, 8, 8};

static int resize(void *column, size_t size) {
    void *at = PyMem_Realloc(*(void **)column, size);
    if (at == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *(void **)column = at;
    return 0;
}

int more_rows(Columns *columns) {
    if (columns->rows < columns->room) return 0;
    size_t room = columns->room ? columns->room * 2 : 1024;
    for (int at = 0; at < NUMBERS; at++)
        if (resize(&columns->numbers[at], room * WIDTHS[at]) < 0) return -1;
    if (resize(&columns->has_in, room) < 0 || resize(&columns->has_out, room) < 0) return -1;
    for (int at = 0; at < TEXTS; at++)
        if (resize(&columns->texts[at].ends, room * 4) < 0 || resize(&columns->texts[at].valid, room) < 0) return -1;
    columns->room = room;
    return 0;
}

int put_text(Columns *columns, int which, Slice text, int present) {
    TextColumn *column = &columns->texts[which];
    if (present) {
        /* Arrow's offsets are 32 bits wide. */
        if (text.size > INT32_MAX - column->bytes.size) {
            PyErr_SetString(PyExc_OverflowError, "too much text in one column: take the rows first");
            return -1;
        }
        if (append(&column->bytes, text.at, text.size) < 0) return -1;
    }
    column->ends[columns->rows] = (int32_t)column->bytes.size;
    column->valid[columns->rows] = (char)present;
    return 0;
}

static inline void put_number(Columns *columns, int which, const void *value, size_t width) {
    memcpy(columns->numbers[which] + columns->rows * width, value, width);
}

void complete_row(Columns *columns, const Numbers *numbers) {
    put_number(columns, N_WHO, &numbers->who, 4);
    put_number(columns, N_PLACE, &numbers->place, 4);
    put_number(columns, N_WHAT, &numbers->what, 4);
    put_number(columns, N_TIME, &numbers->time, 8);
    put_number(columns, N_OBJECT, &numbers->object, 4);
    put_number(columns, N_ID, numbers->id, 16);
    put_number(columns, N_CHECK, &numbers->check, 4);
    put_number(columns, N_IN, &numbers->bytes_in, 8);
    put_number(columns, N_OUT, &numbers->bytes_out, 8);
    columns->has_in[columns->rows] = (char)numbers->has_in;
    columns->has_out[columns->rows] = (char)numbers->has_out;
    columns->rows++;
}

void keep_rows(Columns *columns, size_t rows) {
    if (rows > columns->rows) rows = columns->rows;
    for (int at = 0; at < TEXTS; at++)
        columns->texts[at].bytes.size = rows ? (size_t)columns->texts[at].ends[rows - 1] : 0;
    columns->rows = rows;
}

/* One bit per row, the least significant first; None if all rows have a value. */
static PyObject *bits_of(const char *valid, size_t rows) {
    if (rows == 0 || memchr(valid, 0, rows) == NULL) Py_RETURN_NONE;
    PyObject *bits = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((rows + 7) / 8));
    if (bits == NULL) return NULL;
    char *out = PyBytes_AS_STRING(bits);
    memset(out, 0, (rows + 7) / 8);
    for (size_t row = 0; row < rows; row++) out[row >> 3] |= (char)(valid[row] << (row & 7));
    return bits;
}

static PyObject *offsets_of(const int32_t *ends, size_t rows) {
    PyObject *offsets = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)rows * 4 + 4);
    if (offsets == NULL) return NULL;
    memset(PyBytes_AS_STRING(offsets), 0, 4);
    if (rows) memcpy(PyBytes_AS_STRING(offsets) + 4, ends, rows * 4);
    return offsets;
}

/* Takes over the reference to `value`. */
static int set_item(PyObject *into, const char *name, PyObject *value) {
    if (value == NULL) return -1;
    int done = PyDict_SetItemString(into, name, value);
    Py_DECREF(value);
    return done;
}

PyObject *columns_dict(const Columns *columns) {
    PyObject *dict = PyDict_New();
    if (dict == NULL) return NULL;
    size_t rows = columns->rows;
    for (int at = 0; at < NUMBERS; at++) {
        PyObject *numbers = PyBytes_FromStringAndSize(columns->numbers[at], (Py_ssize_t)(rows * WIDTHS[at]));
        if (set_item(dict, NUMBER_NAMES[at], numbers) < 0) goto failed;
    }
    if (set_item(dict, "has_in", bits_of(columns->has_in, rows)) < 0) goto failed;
    if (set_item(dict, "has_out", bits_of(columns->has_out, rows)) < 0) goto failed;
    for (int at = 0; at < TEXTS; at++) {
        const TextColumn *column = &columns->texts[at];
        PyObject *bits = bits_of(column->valid, rows), *offsets = offsets_of(column->ends, rows), *parts = NULL;
        if (bits != NULL && offsets != NULL)
            parts = Py_BuildValue("OOy#", bits, offsets, column->bytes.at ? column->bytes.at : "",
                                  (Py_ssize_t)column->bytes.size);
        Py_XDECREF(bits);
        Py_XDECREF(offsets);
        if (set_item(dict, TEXT_NAMES[at], parts) < 0) goto failed;
    }
    return dict;
failed:
    Py_DECREF(dict);
    return NULL;
}

void free_columns(Columns *columns) {
    for (int at = 0; at < NUMBERS; at++) PyMem_Free(columns->numbers[at]);
    for (int at = 0; at < TEXTS; at++) {
        release(&columns->texts[at].bytes);
        PyMem_Free(columns->texts[at].ends);
        PyMem_Free(columns->texts[at].valid);
    }
    PyMem_Free(columns->has_in);
    PyMem_Free(columns->has_out);
    memset(columns, 0, sizeof *columns);
}
