/* trailsift._native._scan: the records of a log object in CloudTrail's own form, cut into columns.
 *
 * A record is regular if its members are known, of the expected types and written without blanks. A regular record
 * becomes a row of what only it says, and three numbers for what it shares with others: the caller, the origin and the
 * call. What a new name (naming.c) stands for is decided by Python, once per name (`shared`, an InternTable), so
 * nothing here knows what a member means. All other records are returned by position, and a text that is not exactly
 * {"Records":[...]} is not touched at all. The Python twin is InternTable.take (decode/fast_path.py).
 *
 * The text may be any buffer, and is locked while it is read: Python code that is called meanwhile cannot resize it.
 */
#include <stdlib.h>

#include "crc32.h"
#include "scanner.h"

/* Whether CRC-32 is computed here, or by the function that the scanner was given. */
static int has_crc32;

enum { IRREGULAR = -1, THIS_TIME = -2, FAILED = -3 };
/* What the code of a call says besides its number. */
enum { HAS_KEY = 1, FIXED_KEY = 2, IS_THIN = 4 };

/* -- what names stand for ------------------------------------------------------------------------------------------ */

/* Return whether a userIdentity names an account, in a form that needs no second look. */
static int names_account(Slice user) {
    Parts parts;
    int flags = 0, named = 0;
    /* Python reads no number of more than 4,300 digits. */
    if (user.size == 0 || user.size > 4096 || *user.at != '{') return 0;
    if (object_end(user.at, user.at + user.size, &flags, &parts) == NULL) return 0;
    for (int part = 0; flags == 0 && part < parts.count; part++) {
        if (!IS(parts.at[part].name, "accountId")) continue;
        Slice value = parts.at[part].value;
        if (named || *value.at != '"' || value.size == 2 || IS(value, "\"ANONYMOUS_PRINCIPAL\"")) return 0;
        named = 1;
    }
    return named;
}

static PyObject *ask(Scanner *scanner, int kind, const Record *record, Slice text) {
    Py_ssize_t size = (Py_ssize_t)text.size;
    if (kind == WHO) {
        Slice user = record->present & BIT(IDENTITY) ? record->members[IDENTITY] : (Slice){"", 0};
        return PyObject_CallMethod(scanner->shared, "scan_who", "y#i", user.at, (Py_ssize_t)user.size,
                                   names_account(user));
    }
    if (kind == WHERE) return PyObject_CallMethod(scanner->shared, "scan_place", "y#", text.at, size);
    return PyObject_CallMethod(scanner->shared, "scan_what", "y#y#ii", text.at, size,
                               record->key.at ? record->key.at : "", (Py_ssize_t)record->key.size, record->key_is_item,
                               record->kept > 0);
}

/* Return the code of a name as InternTable gives it. IRREGULAR: no record of this name is regular. THIS_TIME: this
 * record is not. `copy` receives the name's entry, unless it is NULL. */
static int64_t code_of(Scanner *scanner, int kind, Slice name, const Record *record, Slice text, Entry *copy) {
    Names *names = &scanner->names[kind];
    uint64_t hash = hash_bytes(&scanner->secret, name.at, name.size);
    Entry *entry = entry_of(names, name, hash);
    if (entry == NULL) return FAILED;
    if (entry->size == 0) {
        PyObject *answer = ask(scanner, kind, record, text);
        if (answer == NULL) return FAILED;
        int64_t code = PyLong_AsLongLong(answer);
        Py_DECREF(answer);
        if (PyErr_Occurred()) return FAILED;
        if (code == THIS_TIME) return code;
        if (put_entry(names, entry, name, hash, code < 0 ? IRREGULAR : code) < 0) return FAILED;
    }
    if (copy != NULL) *copy = *entry;
    return entry->code;
}

/* Return the checksum of a record's text, with an exception set if there is none. */
static uint32_t check_of(const Scanner *scanner, Slice text) {
    if (has_crc32) return crc32_of(text);
    PyObject *view = PyMemoryView_FromMemory((char *)text.at, (Py_ssize_t)text.size, PyBUF_READ);
    if (view == NULL) return 0;
    uint32_t check = 0;
    PyObject *answer = PyObject_CallOneArg(scanner->check, view);
    if (answer != NULL) check = (uint32_t)PyLong_AsUnsignedLongMask(answer);
    Py_XDECREF(answer);
    if (!PyErr_Occurred()) {
        /* Nobody may look at the text later. */
        PyObject *released = PyObject_CallMethod(view, "release", NULL);
        Py_XDECREF(released);
    }
    Py_DECREF(view);
    return check;
}

/* -- rows ---------------------------------------------------------------------------------------------------------- */

static Slice own(const Record *record, int member) {
    return record->present & BIT(member) ? record->members[member] : (Slice){NULL, 0};
}

/* Prepare a record that was read for its names. Return whether it is regular so far. */
static int complete(Record *record) {
    static const int OPTIONAL[] = {PARAMETERS, RESPONSE, ADDITIONAL, RESOURCES};
    static const int OBJECTS[] = {IDENTITY, PARAMETERS, ADDITIONAL, RESOURCES};
    /* A text where an object belongs: an export may have printed it. */
    for (size_t at = 0; at < sizeof OBJECTS / sizeof *OBJECTS; at++)
        if (record->present & BIT(OBJECTS[at]) && *record->members[OBJECTS[at]].at == '"') return 0;
    record->time = time_of(record->members[TIME]);
    if (record->time == 0 || !uuid_of(record->members[ID], record->id)) return 0;
    if ((record->present & BIT(REQUEST) && record->flags[REQUEST] & HAS_ESCAPE) ||
        (record->present & BIT(SHARED) && record->flags[SHARED] & HAS_ESCAPE))
        return 0;
    if ((record->present & BIT(PARAMETERS) && record->flags[PARAMETERS] & HAS_ESCAPED_NAME) ||
        (record->present & BIT(ADDITIONAL) && record->flags[ADDITIONAL] & HAS_ESCAPED_NAME))
        return 0;
    for (size_t at = 0; at < sizeof OPTIONAL / sizeof *OPTIONAL; at++)
        if (!(record->present & BIT(OPTIONAL[at]))) record->members[OPTIONAL[at]] = (Slice){"", 0};
    record->key = (Slice){NULL, 0};
    record->key_is_item = record->kept = record->has_in = record->has_out = record->floats = 0;
    record->bytes_in = record->bytes_out = 0;
    record->without = record->counted = 0;
    return 1;
}

/* Work out a record's codes, one per kind. Return 1, 0 if the record is not regular, -1 with an exception set. */
static int codes_of(Scanner *scanner, Record *record, Slice text, int64_t codes[KINDS]) {
    const Buffer *name = &scanner->name;
    codes[WHO] = record->who;
    if (codes[WHO] < 0) {
        /* An empty text is not a name; a record without userIdentity is named by a blank. */
        Slice user = record->present & BIT(IDENTITY) ? record->members[IDENTITY] : (Slice){" ", 1};
        Entry entry;
        codes[WHO] = code_of(scanner, WHO, user, record, text, &entry);
        if (codes[WHO] < 0) return codes[WHO] == FAILED ? -1 : 0;
        if (record->slot < RECENT && record->flags[IDENTITY] == 0) scanner->recent[record->slot] = entry;
    }
    for (int stretch = 0; stretch < STRETCHES; stretch++) {
        if (!(record->known & BIT(stretch))) {
            if (say(scanner, stretch, record) < 0) return -1;
        } else if (record->said_in[stretch] != (record->present & SAID_BY(stretch))) {
            /* Some of what a stretch says stands elsewhere. */
            return 0;
        }
    }
    if (name_place(scanner, record) < 0) return -1;
    codes[WHERE] = code_of(scanner, WHERE, (Slice){name->at, name->size}, record, text, NULL);
    if (codes[WHERE] < 0) return codes[WHERE] == FAILED ? -1 : 0;
    int regular = name_what(scanner, record, codes[WHO] & 1);
    if (regular != 1) return regular;
    codes[WHAT] = code_of(scanner, WHAT, (Slice){name->at, name->size}, record, text, NULL);
    if (codes[WHAT] == FAILED) return -1;
    return codes[WHAT] >= 0 && !(record->kept && record->key.at == NULL && codes[WHAT] & FIXED_KEY);
}

/* Write the texts of a row. Return 0, or -1 with an exception set. */
static int put_texts(Scanner *scanner, const Record *record, Slice message, int64_t what) {
    Columns *columns = &scanner->columns;
    Slice request = own(record, REQUEST), shared = own(record, SHARED), response = record->members[RESPONSE];
    Slice kept = record->members[PARAMETERS], left = record->members[ADDITIONAL];
    int has_response = response.size > 0 && *response.at != 'n';
    int is_full = !(what & IS_THIN);
    if (is_full && record->kept == CUT_OUT) {
        if (put_members(&scanner->kept, &record->parameters, record->without) < 0) return -1;
        kept = (Slice){scanner->kept.at, scanner->kept.size};
    }
    if (is_full && record->counted) {
        if (put_members(&scanner->additional, &record->additional, record->counted) < 0) return -1;
        left = (Slice){scanner->additional.at, scanner->additional.size};
    }
    scanner->thin += !is_full;
    if (put_text(columns, C_KEY, record->key, record->key.at != NULL && what & HAS_KEY) < 0 ||
        put_text(columns, C_ID, is_full ? record->members[ID] : (Slice){"", 0}, 1) < 0 ||
        put_text(columns, C_REQUEST, request, is_full && request.at != NULL) < 0 ||
        put_text(columns, C_ERROR, message, is_full && message.at != NULL) < 0 ||
        put_text(columns, C_SHARED, shared, shared.at != NULL) < 0 ||
        put_text(columns, C_PARAMETERS, kept, is_full && record->kept) < 0 ||
        put_text(columns, C_ADDITIONAL, left, is_full && left.size > 0) < 0 ||
        put_text(columns, C_RESPONSE, response, is_full && has_response) < 0)
        return -1;
    return 0;
}

/* Write a regular record into the columns. Return 1, 0 if it is not regular after all, -1 with an exception set. */
static int put_record(Scanner *scanner, Record *record, Slice text, int32_t object) {
    Columns *columns = &scanner->columns;
    if (!complete(record)) return 0;
    Slice message = own(record, ERROR_MESSAGE);
    if (message.at != NULL && record->flags[ERROR_MESSAGE] & HAS_ESCAPE) {
        int done = unescape(&scanner->unescaped, message);
        if (done != 1) return done;
        message = (Slice){scanner->unescaped.at, scanner->unescaped.size};
    }
    int64_t codes[KINDS];
    int regular = codes_of(scanner, record, text, codes);
    if (regular != 1) return regular;
    uint32_t check = check_of(scanner, text);
    if (!has_crc32 && PyErr_Occurred()) return -1;
    if (more_rows(columns) < 0 || put_texts(scanner, record, message, codes[WHAT]) < 0) return -1;
    Numbers numbers = {
        .time = record->time,
        .bytes_in = record->bytes_in,
        .bytes_out = record->bytes_out,
        .id = record->id,
        .who = (int32_t)(codes[WHO] >> 1),
        .place = (int32_t)codes[WHERE],
        .what = (int32_t)(codes[WHAT] >> 3),
        .object = object,
        .check = check,
        .has_in = record->has_in,
        .has_out = record->has_out,
    };
    complete_row(columns, &numbers);
    for (int stretch = 0; stretch < STRETCHES; stretch++)
        if (!(record->known & BIT(stretch)) && learn(scanner, stretch, record) < 0) return -1;
    return 1;
}

/* -- the type ------------------------------------------------------------------------------------------------------ */

static const char HEAD[] = "{\"Records\":[";
#define TEXT_LIMIT (1 << 29)

/* Return whether a scanner may be used now; else an exception is set. */
static int is_free(const Scanner *scanner) {
    if (scanner->shared != NULL && !scanner->busy) return 1;
    PyErr_SetString(PyExc_RuntimeError,
                    scanner->busy ? "the scanner is reading a log object" : "the scanner was not initialized");
    return 0;
}

/* Append (position, start, end) to a list. Return 0, or -1 with an exception set. */
static int put_place(PyObject *list, Py_ssize_t position, Py_ssize_t start, Py_ssize_t end) {
    PyObject *place = Py_BuildValue("nnn", position, start, end);
    if (place == NULL) return -1;
    int done = PyList_Append(list, place);
    Py_DECREF(place);
    return done;
}

/* Read a text, and put the places of irregular records into `others`. Return the number of records, -1 if the text has
 * another form, -2 with an exception set. */
static Py_ssize_t read_text(Scanner *scanner, const char *text, const char *end, int object, PyObject *others) {
    enum { OTHER_FORM = -1, ERROR = -2 };
    if (end - text > TEXT_LIMIT || !STARTS(text, end, HEAD)) return OTHER_FORM;
    const char *at = text + sizeof HEAD - 1;
    Py_ssize_t count = 0;
    Record record;
    while (peek(at, end) != ']' || count) {
        const char *start = at;
        int form = read_record(scanner, &at, end, &record);
        if (form == BROKEN) return OTHER_FORM;
        Slice raw = {start, (size_t)(at - start)};
        int done = form == REGULAR ? put_record(scanner, &record, raw, object) : 0;
        if (done < 0 || (done == 0 && put_place(others, count, start - text, at - text) < 0)) return ERROR;
        count++;
        if (peek(at, end) == ']') break;
        if (peek(at++, end) != ',') return OTHER_FORM;
    }
    if (peek(++at, end) != '}') return OTHER_FORM;
    at++;
    while (at < end && (*at == '\n' || *at == '\r' || *at == ' ' || *at == '\t')) at++;
    return at == end ? count : OTHER_FORM;
}

PyDoc_STRVAR(scan_doc,
             "scan(text, log_object)\n--\n\n"
             "Take the regular records of a text {\"Records\":[...]}, which may be any buffer of bytes.\n\n"
             "Return the number of records, and (position, start, end) of each that is not regular. Return None, and\n"
             "take nothing, if the text is of another form.");

static PyObject *scan(Scanner *scanner, PyObject *arguments) {
    Py_buffer data;
    int object;
    if (!PyArg_ParseTuple(arguments, "y*i:scan", &data, &object)) return NULL;
    PyObject *answer = NULL, *others = is_free(scanner) ? PyList_New(0) : NULL;
    if (others != NULL) {
        const char *text = data.buf;
        size_t before = scanner->columns.rows;
        scanner->busy = 1;
        Py_ssize_t count = read_text(scanner, text, text + data.len, object, others);
        scanner->busy = 0;
        if (count < 0) keep_rows(&scanner->columns, before);
        if (count >= 0)
            answer = Py_BuildValue("nO", count, others);
        else if (count == -1)
            answer = Py_NewRef(Py_None);
        Py_DECREF(others);
    }
    PyBuffer_Release(&data);
    return answer;
}

PyDoc_STRVAR(take_doc,
             "take()\n--\n\n"
             "Return the rows so far, and forget them: numbers by name, and for texts (bits, offsets, bytes) as Arrow\n"
             "has them; `has_in` and `has_out` are bits.");

static PyObject *take(Scanner *scanner, PyObject *Py_UNUSED(ignored)) {
    if (!is_free(scanner)) return NULL;
    PyObject *columns = columns_dict(&scanner->columns);
    if (columns != NULL) keep_rows(&scanner->columns, 0);
    return columns;
}

PyDoc_STRVAR(keep_doc, "keep(rows)\n--\n\nForget all rows but the first ones.");

static PyObject *keep(Scanner *scanner, PyObject *argument) {
    Py_ssize_t rows = PyLong_AsSsize_t(argument);
    if (PyErr_Occurred() || !is_free(scanner)) return NULL;
    keep_rows(&scanner->columns, rows < 0 ? 0 : (size_t)rows);
    Py_RETURN_NONE;
}

static void clear_all_names(Scanner *scanner) {
    for (int kind = 0; kind < KINDS; kind++) clear_names(&scanner->names[kind]);
    memset(scanner->recent, 0, sizeof scanner->recent);
    for (int stretch = 0; stretch < STRETCHES; stretch++) {
        PyMem_Free(scanner->recent_stretches[stretch]);
        scanner->recent_stretches[stretch] = NULL;
        for (int side = 0; side < SIDES; side++) clear_names(&scanner->said[stretch][side]);
    }
}

PyDoc_STRVAR(forget_doc, "forget_names()\n--\n\nForget what names stand for.");

static PyObject *forget_names(Scanner *scanner, PyObject *Py_UNUSED(ignored)) {
    if (!is_free(scanner)) return NULL;
    clear_all_names(scanner);
    Py_RETURN_NONE;
}

static PyObject *get_rows(Scanner *scanner, void *Py_UNUSED(closure)) {
    return PyLong_FromSize_t(scanner->columns.rows);
}

static PyObject *get_thin(Scanner *scanner, void *Py_UNUSED(closure)) { return PyLong_FromSize_t(scanner->thin); }

static PyObject *get_size(Scanner *scanner, void *Py_UNUSED(closure)) {
    size_t size = 0;
    for (int at = 0; at < TEXTS; at++) size += scanner->columns.texts[at].bytes.size;
    return PyLong_FromSize_t(size);
}

static PyObject *get_passed(Scanner *scanner, void *Py_UNUSED(closure)) {
    size_t passed = 0;
    for (int kind = 0; kind < KINDS; kind++) passed += scanner->names[kind].passed;
    for (int stretch = 0; stretch < STRETCHES; stretch++)
        for (int side = 0; side < SIDES; side++) passed += scanner->said[stretch][side].passed;
    return PyLong_FromSize_t(passed);
}

static int init(Scanner *scanner, PyObject *arguments, PyObject *names) {
    PyObject *shared, *check;
    static char *parameters[] = {"shared", "check", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "OO:Scanner", parameters, &shared, &check)) return -1;
    if (scanner->shared != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the scanner is initialized already");
        return -1;
    }
    if (draw_secret(&scanner->secret) < 0) return -1;
    scanner->shared = Py_NewRef(shared);
    scanner->check = Py_NewRef(check);
    for (int at = 0; at < MEMBERS; at++) scanner->guess[at] = (at + 1) % MEMBERS;
    return 0;
}

static int traverse(Scanner *scanner, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(scanner));
    Py_VISIT(scanner->shared);
    Py_VISIT(scanner->check);
    return 0;
}

static int clear(Scanner *scanner) {
    Py_CLEAR(scanner->shared);
    Py_CLEAR(scanner->check);
    return 0;
}

static void dealloc(Scanner *scanner) {
    PyTypeObject *type = Py_TYPE(scanner);
    PyObject_GC_UnTrack(scanner);
    clear(scanner);
    free_columns(&scanner->columns);
    Buffer *buffers[] = {&scanner->name, &scanner->kept, &scanner->additional, &scanner->unescaped};
    for (size_t at = 0; at < sizeof buffers / sizeof *buffers; at++) release(buffers[at]);
    clear_all_names(scanner);
    type->tp_free((PyObject *)scanner);
    Py_DECREF(type);
}

static PyMethodDef METHODS[] = {
    {"scan", (PyCFunction)scan, METH_VARARGS, scan_doc},
    {"take", (PyCFunction)take, METH_NOARGS, take_doc},
    {"keep", (PyCFunction)keep, METH_O, keep_doc},
    {"forget_names", (PyCFunction)forget_names, METH_NOARGS, forget_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef VALUES[] = {
    {"rows", (getter)get_rows, NULL, "Rows so far.", NULL},
    {"thin", (getter)get_thin, NULL, "Rows ever taken without their texts.", NULL},
    {"size", (getter)get_size, NULL, "Bytes of text in the rows so far.", NULL},
    {"passed", (getter)get_passed, NULL, "Other names that lookups of known names have passed over.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    scanner_doc,
    "Scanner(shared, check)\n--\n\n"
    "Rows of regular records. `shared` (an InternTable) decides what a new name stands for: scan_who(user,\n"
    "named), scan_place(record) and scan_what(record, key, key_is_item, kept) return a code (see there), -1 if\n"
    "all records of this name are irregular, or -2 if this one is. check(record) -> int is the CRC-32 of its\n"
    "text; it is used if the processor has no instruction for it.");

static PyType_Slot SLOTS[] = {
    {Py_tp_doc, (void *)scanner_doc}, {Py_tp_new, PyType_GenericNew}, {Py_tp_init, init},
    {Py_tp_dealloc, dealloc},         {Py_tp_traverse, traverse},     {Py_tp_clear, clear},
    {Py_tp_methods, METHODS},         {Py_tp_getset, VALUES},         {0, NULL},
};

static PyType_Spec SPEC = {
    .name = "trailsift._native._scan.Scanner",
    .basicsize = sizeof(Scanner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = SLOTS,
};

/* -- the module ---------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(
    only_doc,
    "only_at_end(data, size)\n--\n\nReturn whether the last `size` bytes of the data occur nowhere else in it.");

static PyObject *only_at_end(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer data;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "y*n:only_at_end", &data, &size)) return NULL;
    const char *at = data.buf, *end = at + data.len;
    int only = size > 0 && data.len >= size && find(at, end, end - size, (size_t)size) == end - size;
    PyBuffer_Release(&data);
    return PyBool_FromLong(only);
}

static PyMethodDef FUNCTIONS[] = {
    {"only_at_end", only_at_end, METH_VARARGS, only_doc},
    {NULL, NULL, 0, NULL},
};

static int exec(PyObject *module) {
    const char *simd = getenv("TRAILSIFT_SIMD");
    int use_simd = simd == NULL || strcmp(simd, "0") != 0;
    prepare_json(use_simd);
    has_crc32 = prepare_crc32(use_simd);
    prepare_values();
    prepare_records();
    PyObject *type = PyType_FromModuleAndSpec(module, &SPEC, NULL);
    if (type == NULL) return -1;
    int done = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return done;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, exec}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trailsift._native._scan",
    .m_doc = "Cuts the records of CloudTrail's log objects into columns.",
    .m_methods = FUNCTIONS,
    .m_slots = MODULE_SLOTS,
};

PyMODINIT_FUNC PyInit__scan(void) { return PyModuleDef_Init(&MODULE); }
