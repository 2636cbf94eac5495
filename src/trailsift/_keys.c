/* Object keys in bulk: their patterns, and the hashes that sketches hold. An accelerator of pattern.py and summarize.py:
 * the same comes out without it, more slowly.
 *
 * A key is read run by run of ASCII letters and digits, as pattern._TOKEN does. What needs a second look (addresses,
 * times, placeholders that are there already, e-mail) is left to Python, and so are words that a person may have chosen.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* pattern._CUT_FLOOR and pattern.LIMIT, in bytes: a key of so many bytes has at most so many characters. */
#define KEY_LIMIT 384
#define PATTERN_LIMIT 512

enum { DIGIT = 1, LOWER = 2, UPPER = 4, LOWER_HEX = 8, UPPER_HEX = 16, ALNUM = DIGIT | LOWER | UPPER };
static unsigned char CLASS[256];

static void fill_classes(void) {
    for (int sign = '0'; sign <= '9'; sign++) CLASS[sign] = DIGIT | LOWER_HEX | UPPER_HEX;
    for (int sign = 'a'; sign <= 'z'; sign++) CLASS[sign] = (unsigned char)(LOWER | (sign <= 'f' ? LOWER_HEX : 0));
    for (int sign = 'A'; sign <= 'Z'; sign++) CLASS[sign] = (unsigned char)(UPPER | (sign <= 'F' ? UPPER_HEX : 0));
}

#define KIND(at) CLASS[(unsigned char)*(at)]

/* A key being read; its text ends in a NUL. */
typedef struct {
    const char *at;
    PyObject *word;
    char out[PATTERN_LIMIT + 1];
    size_t size;
} Reader;

enum { DONE = 1, UNSURE = 0, FAILED = -1 };

static int put(Reader *reader, const char *from, size_t size) {
    if (reader->size + size > PATTERN_LIMIT) return UNSURE;
    memcpy(reader->out + reader->size, from, size);
    reader->size += size;
    return DONE;
}
#define PUT(reader, text) put(reader, text, sizeof text - 1)

static int number(const char *at, int size) {
    int value = 0;
    for (; size; size--, at++) {
        if (!(KIND(at) & DIGIT)) return -1;
        value = value * 10 + *at - '0';
    }
    return value;
}

static int in_range(int value, int low, int high) { return value >= low && value <= high; }
static int is_year(const char *at) { return in_range(number(at, 4), 1900, 2099); }
static int is_month(const char *at) { return in_range(number(at, 2), 1, 12); }
static int is_day(const char *at) { return in_range(number(at, 2), 1, 31); }
static int is_hour(const char *at) { return in_range(number(at, 2), 0, 23); }
static int is_sixty(const char *at) { return in_range(number(at, 2), 0, 60); }
static int is_date(const char *at) { return is_year(at) && is_month(at + 4) && is_day(at + 6); }
static int is_clock(const char *at) { return is_hour(at) && is_sixty(at + 2) && is_sixty(at + 4); }

/* How many bytes of a year, a month and perhaps a day with one sign between them begin at `at`; 0 for none. */
static int dated(const char *at) {
    char sign = at[4];
    if (!is_year(at) || sign == 0 || strchr("-_./", sign) == NULL || !is_month(at + 5)) return 0;
    if (at[7] == sign && is_day(at + 8) && !(KIND(at + 10) & ALNUM)) return 10;
    return KIND(at + 7) & ALNUM ? 0 : 7;
}

/* Whether a time of day may follow a date of ten bytes. */
static int may_go_on(const char *at) {
    if (at[4] == '/' || at[7] != at[4] || !is_day(at + 8)) return 0;
    return at[10] == 'T' || at[10] == 't' || ((at[10] == ' ' || at[10] == '-' || at[10] == '_') && KIND(at + 11) & DIGIT);
}

static int is_uuid(const char *at) {
    for (int place = 0; place < 36; place++) {
        int dash = place == 8 || place == 13 || place == 18 || place == 23;
        if (dash ? at[place] != '-' : !(KIND(at + place) & (LOWER_HEX | UPPER_HEX))) return 0;
    }
    return !(KIND(at + 36) & ALNUM);
}

static const char *after(const char *at, const char *text) {
    size_t size = strlen(text);
    return strncmp(at, text, size) == 0 ? at + size : NULL;
}

/* Behind the name of a region whose first part ends at `at` (with a dash); NULL where there is none. */
static const char *region_end(const char *at) {
    const char *next;
    at++;
    if ((next = after(at, "gov-")) != NULL || (next = after(at, "de-")) != NULL) at = next;
    else if ((next = after(at, "iso")) != NULL) {
        if (*next != '-' && KIND(next) & LOWER) next++;
        if (*next == '-') at = next + 1;
    }
    if ((next = after(at, "north")) != NULL || (next = after(at, "south")) != NULL) {
        const char *side = after(next, "east");
        if (side == NULL) side = after(next, "west");
        if (side != NULL) next = side;
    } else if ((next = after(at, "central")) == NULL && (next = after(at, "east")) == NULL)
        next = after(at, "west");
    if (next == NULL || *next != '-' || !(KIND(next + 1) & DIGIT)) return NULL;
    next += 2;
    if (*next >= 'a' && *next <= 'f') next++;
    return KIND(next) & ALNUM ? NULL : next;
}

static int is_region_start(const char *at, size_t size) {
    static const char *STARTS[] = {"af", "ap", "ca", "cn", "eu", "eusc", "il", "me", "mx", "sa", "us"};
    for (size_t which = 0; which < sizeof STARTS / sizeof *STARTS; which++)
        if (strlen(STARTS[which]) == size && memcmp(at, STARTS[which], size) == 0) return 1;
    return 0;
}

/* A word that Python knows more about: Reader.word gives what stands for it. */
static int put_word(Reader *reader, size_t size) {
    PyObject *answer = PyObject_CallFunction(reader->word, "s#", reader->at, (Py_ssize_t)size);
    if (answer == NULL) return FAILED;
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(answer, &length);
    int done = text == NULL ? FAILED : put(reader, text, (size_t)length);
    Py_DECREF(answer);
    reader->at += size;
    return done;
}

/* pattern._HEX, for a run of letters and digits that holds a digit and a letter. */
static int is_hex_word(const char *at, size_t size, unsigned char all) {
    if (size >= 8) return (all & (LOWER_HEX | UPPER_HEX)) != 0;
    return size >= 4 && KIND(at) & DIGIT && all & LOWER_HEX;
}

static int put_digits(Reader *reader, size_t size) {
    const char *at = reader->at, *behind = at + size;
    if (size == 4 && is_year(at)) {
        int bytes = dated(at);
        if (bytes && may_go_on(at)) return UNSURE;
        if (bytes) {
            reader->at += bytes;
            return PUT(reader, "{date}");
        }
    }
    /* An address or a time of day may begin here. */
    if (size <= 3 && (*behind == '.' || *behind == ':') && KIND(behind + 1) & DIGIT) return UNSURE;
    reader->at += size;
    if (size == 8 && is_date(at)) {
        if ((*behind == '-' || *behind == '_') && is_clock(behind + 1) && !(KIND(behind + 7) & ALNUM)) {
            reader->at += 7;
            return PUT(reader, "{time}");
        }
        return PUT(reader, "{date}");
    }
    if ((size == 14 || size == 17) && is_date(at) && is_hour(at + 8) && is_sixty(at + 10) && is_sixty(at + 12))
        return PUT(reader, "{time}");
    return PUT(reader, "{n}");
}

/* Behind a log delivery's date, time, and random part, where a dot follows; NULL for anything else that begins with
 * the 14 letters and digits of a date and time. */
static const char *delivery_end(const char *at) {
    if (at[8] != 'T' || !is_hour(at + 9) || !is_sixty(at + 11) || at[13] != 'Z' || at[14] != '_') return NULL;
    const char *end = at + 15;
    while (KIND(end) & ALNUM) end++;
    return *end == '.' && end - at >= 15 + 8 && end - at <= 15 + 16 ? end : NULL;
}

/* The run of letters and digits at `at`. */
static int put_run(Reader *reader) {
    const char *at = reader->at, *end = at;
    unsigned char some = 0, all = 0xFF;
    for (; KIND(end) & ALNUM; end++) {
        some |= KIND(end);
        all &= KIND(end);
    }
    size_t size = (size_t)(end - at);
    if (size == 8 && *end == '-' && !(some & ~(DIGIT | LOWER | UPPER | LOWER_HEX | UPPER_HEX)) && is_uuid(at)) {
        reader->at += 36;
        return PUT(reader, "{uuid}");
    }
    if (!(some & DIGIT)) {
        if (*end == '-' && size == 2 && at[0] == 'i' && at[1] == 'p' && KIND(end + 1) & DIGIT) return UNSURE;
        if (*end == '-' && size <= 4 && is_region_start(at, size)) {
            const char *behind = region_end(end);
            if (behind != NULL) end = behind;
        }
        if (size >= 16) return put_word(reader, size);
        reader->at = end;
        return put(reader, at, (size_t)(end - at));
    }
    if (all & DIGIT) return put_digits(reader, size);
    /* A time without signs. */
    if (size >= 9 && (at[8] == 'T' || at[8] == 't') && is_date(at)) {
        const char *behind = size == 14 ? delivery_end(at) : NULL;
        if (behind == NULL) return UNSURE;
        reader->at = behind;
        return PUT(reader, "{time}_{id}");
    }
    if (is_hex_word(at, size, all)) {
        reader->at = end;
        return PUT(reader, "{hex}");
    }
    /* A version, as in item keys. */
    if ((*at == 'v' || *at == 'V') && size <= 4 && number(at + 1, (int)size - 1) >= 0) {
        reader->at = end;
        return put(reader, at, size);
    }
    return put_word(reader, size);
}

/* Reads up to `end`. */
static int read_text(Reader *reader, const char *end) {
    while (reader->at < end) {
        const char *at = reader->at;
        int done;
        if (KIND(at) & ALNUM) {
            done = put_run(reader);
        } else if (*at == '{' || *at == '@' || *at == 0) {
            return UNSURE;
        } else {
            size_t size = *at == '%' && KIND(at + 1) & (LOWER_HEX | UPPER_HEX) && KIND(at + 2) & (LOWER_HEX | UPPER_HEX)
                              ? 3
                              : 1;
            done = put(reader, at, size);
            reader->at += size;
        }
        if (done != DONE) return done;
    }
    return reader->at == end ? DONE : UNSURE;
}

/* An item key: attributes' names stay, texts are read. */
static int read_json(Reader *reader, const char *end) {
    while (reader->at < end) {
        const char *at = reader->at;
        if (*at != '"') {
            if (KIND(at) & ALNUM || *at == '%' || (*at == '{' && at != end && at[1] != '"')) return UNSURE;
            if (put(reader, at, 1) != DONE) return UNSURE;
            reader->at++;
            continue;
        }
        const char *quote = memchr(at + 1, '"', (size_t)(end - at - 1));
        if (quote == NULL || memchr(at, '\\', (size_t)(quote - at)) != NULL) return UNSURE;
        if (quote[1] == ':') {
            if (put(reader, at, (size_t)(quote + 2 - at)) != DONE) return UNSURE;
            reader->at = quote + 2;
            continue;
        }
        if (quote[1] != ',' && quote[1] != '}') return UNSURE;
        int done = read_text(reader, quote + 1);
        if (done != DONE) return done;
    }
    return DONE;
}

static PyObject *pattern_of(PyObject *key, PyObject *word, PyObject *fallback) {
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(key, &size);
    if (text == NULL) return NULL;
    int done = UNSURE;
    Reader reader = {.at = text, .word = word, .size = 0};
    if (size <= KEY_LIMIT)
        done = size > 1 && text[0] == '{' && text[1] == '"' ? read_json(&reader, text + size)
                                                            : read_text(&reader, text + size);
    if (done == FAILED) return NULL;
    if (done == UNSURE) return PyObject_CallOneArg(fallback, key);
    return PyUnicode_DecodeUTF8(reader.out, (Py_ssize_t)reader.size, NULL);
}

PyDoc_STRVAR(patterns_doc,
             "patterns(keys, word, fallback)\n--\n\n"
             "The patterns of a list of keys. word(text) -> str says what stands for a run of letters and digits that is\n"
             "not told by its form, fallback(key) -> str is the pattern of a key that needs a closer look.");

static PyObject *patterns(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *keys, *word, *fallback;
    if (!PyArg_ParseTuple(arguments, "O!OO:patterns", &PyList_Type, &keys, &word, &fallback)) return NULL;
    Py_ssize_t size = PyList_GET_SIZE(keys);
    PyObject *found = PyList_New(size);
    for (Py_ssize_t at = 0; found != NULL && at < size; at++) {
        PyObject *pattern = pattern_of(PyList_GET_ITEM(keys, at), word, fallback);
        if (pattern == NULL) Py_CLEAR(found);
        else PyList_SET_ITEM(found, at, pattern);
    }
    return found;
}

/* -- MD5 (RFC 1321) ------------------------------------------------------------------------------------------------ */

static uint32_t SINES[64];
static const unsigned char TURNS[64] = {7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 5, 9,  14, 20, 5, 9,
                                        14, 20, 5, 9, 14, 20, 5, 9, 14, 20, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23,
                                        4, 11, 16, 23, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21};

static void digest_block(uint32_t state[4], const unsigned char *block) {
    uint32_t words[16], a = state[0], b = state[1], c = state[2], d = state[3];
    for (int at = 0; at < 16; at++)
        words[at] = (uint32_t)block[at * 4] | (uint32_t)block[at * 4 + 1] << 8 | (uint32_t)block[at * 4 + 2] << 16 |
                    (uint32_t)block[at * 4 + 3] << 24;
    for (int at = 0; at < 64; at++) {
        uint32_t mix, word;
        if (at < 16) mix = (b & c) | (~b & d), word = words[at];
        else if (at < 32) mix = (d & b) | (~d & c), word = words[(5 * at + 1) & 15];
        else if (at < 48) mix = b ^ c ^ d, word = words[(3 * at + 5) & 15];
        else mix = c ^ (b | ~d), word = words[(7 * at) & 15];
        mix += a + SINES[at] + word;
        a = d;
        d = c;
        c = b;
        b += mix << TURNS[at] | mix >> (32 - TURNS[at]);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

/* The first eight bytes of the MD5 as a signed big-endian number. */
static int64_t hash_of(const unsigned char *text, size_t size) {
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    unsigned char last[128] = {0};
    size_t whole = size / 64 * 64, rest = size - whole, padded = rest < 56 ? 64 : 128;
    for (size_t at = 0; at < whole; at += 64) digest_block(state, text + at);
    memcpy(last, text + whole, rest);
    last[rest] = 0x80;
    for (int byte = 0; byte < 8; byte++) last[padded - 8 + (size_t)byte] = (unsigned char)((uint64_t)size * 8 >> 8 * byte);
    for (size_t at = 0; at < padded; at += 64) digest_block(state, last + at);
    uint64_t hash = 0;
    for (int byte = 0; byte < 8; byte++) hash = hash << 8 | ((state[byte / 4] >> 8 * (byte % 4)) & 0xFF);
    return (int64_t)hash;
}

PyDoc_STRVAR(hashes_doc, "hashes(texts)\n--\n\nsummarize.hash64 of each of a list of texts, as 8 native bytes each.");

static PyObject *hashes(PyObject *Py_UNUSED(module), PyObject *texts) {
    if (!PyList_Check(texts)) return PyErr_Format(PyExc_TypeError, "hashes() takes a list");
    Py_ssize_t size = PyList_GET_SIZE(texts);
    PyObject *found = PyBytes_FromStringAndSize(NULL, size * 8);
    for (Py_ssize_t at = 0; found != NULL && at < size; at++) {
        Py_ssize_t length;
        const char *text = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(texts, at), &length);
        if (text == NULL) {
            Py_CLEAR(found);
            break;
        }
        int64_t hash = hash_of((const unsigned char *)text, (size_t)length);
        memcpy(PyBytes_AS_STRING(found) + at * 8, &hash, 8);
    }
    return found;
}

static PyMethodDef METHODS[] = {
    {"patterns", patterns, METH_VARARGS, patterns_doc},
    {"hashes", hashes, METH_O, hashes_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "trailsift._keys", .m_doc = "See _keys.c.", .m_size = -1, .m_methods = METHODS,
};

/* floor(abs(sin(n)) * 2^32), as the RFC defines its constants. */
static int fill_sines(void) {
    PyObject *math = PyImport_ImportModule("math");
    if (math == NULL) return -1;
    for (int at = 0; at < 64; at++) {
        PyObject *sine = PyObject_CallMethod(math, "sin", "d", (double)(at + 1));
        if (sine == NULL) {
            Py_DECREF(math);
            return -1;
        }
        double value = PyFloat_AS_DOUBLE(sine);
        Py_DECREF(sine);
        SINES[at] = (uint32_t)((value < 0 ? -value : value) * 4294967296.0);
    }
    Py_DECREF(math);
    return 0;
}

PyMODINIT_FUNC PyInit__keys(void) {
    fill_classes();
    if (fill_sines() < 0) return NULL;
    return PyModule_Create(&MODULE);
}
