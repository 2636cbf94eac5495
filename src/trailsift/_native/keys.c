/* trailsift._native._keys: object keys in bulk, their patterns and the hashes that sketches hold.
 *
 * A key is read by runs of ASCII letters and digits, as cloudtrail/key_patterns.py (the Python twin) does. What needs a
 * second look (addresses, times of day, placeholders that are there already, e-mail) is left to Python, and so are
 * words that a person may have chosen.
 *
 * Patterns are read from a copy of the key that ends in a NUL, which is in no class and equals no sign that is looked
 * for. So every test of a byte fails there, and a test of the byte behind it is only made if it succeeded.
 */
#include "arrays.h"
#include "hash.h"

/* The limits of key_patterns.py, in bytes: a key of so many bytes has at most so many characters. */
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

/* A key being read. */
typedef struct {
    const char *at;
    PyObject *word;
    char out[PATTERN_LIMIT + 1];
    size_t size;
} Reader;

/* UNSURE: Python decides. FAILED: an exception is set. */
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

/* Return the size of the date at `at`: a year, a month and perhaps a day with one sign between them. 0: none. */
static int dated(const char *at) {
    char sign = at[4];
    if (!is_year(at) || sign == 0 || strchr("-_./", sign) == NULL || !is_month(at + 5)) return 0;
    if (at[7] == sign && is_day(at + 8) && !(KIND(at + 10) & ALNUM)) return 10;
    return KIND(at + 7) & ALNUM ? 0 : 7;
}

/* Return whether a time of day may follow a date of ten bytes. */
static int may_go_on(const char *at) {
    if (at[4] == '/' || at[7] != at[4] || !is_day(at + 8)) return 0;
    return at[10] == 'T' || at[10] == 't' ||
           ((at[10] == ' ' || at[10] == '-' || at[10] == '_') && KIND(at + 11) & DIGIT);
}

static int is_uuid(const char *at) {
    for (int place = 0; place < 36; place++) {
        int dash = place == 8 || place == 13 || place == 18 || place == 23;
        if (dash ? at[place] != '-' : !(KIND(at + place) & (LOWER_HEX | UPPER_HEX))) return 0;
    }
    return !(KIND(at + 36) & ALNUM);
}

/* Return the first byte behind a text, NULL if it does not begin at `at`. */
static const char *after(const char *at, const char *text) {
    size_t size = strlen(text);
    return strncmp(at, text, size) == 0 ? at + size : NULL;
}

/* Return the first byte behind the name of a region whose first part ends at `at` (with a dash); NULL if it is none. */
static const char *region_end(const char *at) {
    const char *next;
    at++;
    if ((next = after(at, "gov-")) != NULL || (next = after(at, "de-")) != NULL)
        at = next;
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

/* Put what Python says stands for a word. */
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

/* Return whether a run with both digits and letters reads as hexadecimal. */
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

/* Return the first byte behind the date, time and random part of a log delivery, if a dot follows; NULL for anything
 * else that begins with the 14 letters and digits of a date and time. */
static const char *delivery_end(const char *at) {
    if (at[8] != 'T' || !is_hour(at + 9) || !is_sixty(at + 11) || at[13] != 'Z' || at[14] != '_') return NULL;
    const char *end = at + 15;
    while (KIND(end) & ALNUM) end++;
    return *end == '.' && end - at >= 15 + 8 && end - at <= 15 + 16 ? end : NULL;
}

/* Read the run of letters and digits at `at`. */
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

/* Read up to `end`. */
static int read_text(Reader *reader, const char *end) {
    while (reader->at < end) {
        const char *at = reader->at;
        int done;
        if (KIND(at) & ALNUM) {
            done = put_run(reader);
        } else if (*at == '{' || *at == '@' || *at == 0) {
            return UNSURE;
        } else {
            size_t size =
                *at == '%' && KIND(at + 1) & (LOWER_HEX | UPPER_HEX) && KIND(at + 2) & (LOWER_HEX | UPPER_HEX) ? 3 : 1;
            done = put(reader, at, size);
            reader->at += size;
        }
        if (done != DONE) return done;
    }
    return reader->at == end ? DONE : UNSURE;
}

/* Read an item key: the names of attributes stay, their texts are read. */
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

/* Keys come out of a log (hash.h). */
static Secret secret;

/* The different patterns: a hash table with open addressing. */
typedef struct {
    PyObject *list;
    uint64_t *hashes;
    int32_t *slots; /* 0: empty, else one more than a place in the list */
    size_t room;
} Patterns;

static int make_room(Patterns *patterns) {
    size_t room = patterns->room ? patterns->room * 2 : 256, count = (size_t)PyList_GET_SIZE(patterns->list);
    uint64_t *hashes = PyMem_Realloc(patterns->hashes, room * sizeof *hashes);
    int32_t *slots = PyMem_Calloc(room, sizeof *slots);
    if (hashes != NULL) patterns->hashes = hashes;
    if (hashes == NULL || slots == NULL) {
        PyMem_Free(slots);
        PyErr_NoMemory();
        return -1;
    }
    for (size_t at = 0; at < count; at++) {
        size_t slot = hashes[at] & (room - 1);
        while (slots[slot]) slot = (slot + 1) & (room - 1);
        slots[slot] = (int32_t)at + 1;
    }
    PyMem_Free(patterns->slots);
    patterns->slots = slots;
    patterns->room = room;
    return 0;
}

/* Return the place of a pattern in the list, and put it there if it is new; -1 with an exception set. */
static int32_t place_of(Patterns *patterns, const char *text, size_t size) {
    if ((size_t)PyList_GET_SIZE(patterns->list) * 2 >= patterns->room && make_room(patterns) < 0) return -1;
    uint64_t hash = hash_bytes(&secret, text, size);
    size_t slot = hash & (patterns->room - 1);
    for (; patterns->slots[slot]; slot = (slot + 1) & (patterns->room - 1)) {
        int32_t place = patterns->slots[slot] - 1;
        if (patterns->hashes[place] != hash) continue;
        Py_ssize_t length;
        const char *known = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(patterns->list, place), &length);
        if (known == NULL) return -1;
        if ((size_t)length == size && memcmp(known, text, size) == 0) return place;
    }
    Py_ssize_t place = PyList_GET_SIZE(patterns->list);
    PyObject *pattern = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL);
    if (pattern == NULL) return -1;
    int done = PyList_Append(patterns->list, pattern);
    Py_DECREF(pattern);
    if (done < 0) return -1;
    patterns->hashes[place] = hash;
    patterns->slots[slot] = (int32_t)place + 1;
    return (int32_t)place;
}

/* Return the place of a key's pattern in the list; -1 with an exception set. */
static int32_t pattern_of(Patterns *patterns, const char *text, size_t size, PyObject *word, PyObject *fallback) {
    int done = UNSURE;
    char key[KEY_LIMIT + 1];
    Reader reader = {.at = key, .word = word, .size = 0};
    if (size <= KEY_LIMIT) {
        memcpy(key, text, size);
        key[size] = 0;
        done = size > 1 && key[0] == '{' && key[1] == '"' ? read_json(&reader, key + size)
                                                          : read_text(&reader, key + size);
    }
    if (done == FAILED) return -1;
    if (done == DONE) return place_of(patterns, reader.out, reader.size);
    PyObject *answer = PyObject_CallFunction(fallback, "s#", text, (Py_ssize_t)size);
    if (answer == NULL) return -1;
    Py_ssize_t length;
    const char *pattern = PyUnicode_AsUTF8AndSize(answer, &length);
    int32_t place = pattern == NULL ? -1 : place_of(patterns, pattern, (size_t)length);
    Py_DECREF(answer);
    return place;
}

PyDoc_STRVAR(patterns_doc,
             "patterns(offsets, text, word, fallback)\n--\n\n"
             "Return the place of each key's pattern (32-bit), and the patterns. Keys are given as Arrow has texts.\n\n"
             "word(text) -> str returns what stands for a run of letters and digits whose form says nothing;\n"
             "fallback(key) -> str returns the pattern of a key that needs a second look.");

static PyObject *patterns(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *offsets, *bytes, *word, *fallback, *answer = NULL;
    Texts keys;
    if (!PyArg_ParseTuple(arguments, "OOOO:patterns", &offsets, &bytes, &word, &fallback)) return NULL;
    if (texts_of(offsets, bytes, &keys) < 0) return NULL;
    Patterns different = {.list = PyList_New(0)};
    PyObject *places = PyBytes_FromStringAndSize(NULL, keys.count * 4);
    if (different.list == NULL || places == NULL) goto done;
    for (Py_ssize_t at = 0; at < keys.count; at++) {
        size_t size = (size_t)(keys.ends[at + 1] - keys.ends[at]);
        int32_t place = pattern_of(&different, keys.text + keys.ends[at], size, word, fallback);
        if (place < 0) goto done;
        ((int32_t *)PyBytes_AS_STRING(places))[at] = place;
    }
    answer = PyTuple_Pack(2, places, different.list);
done:
    Py_XDECREF(places);
    Py_XDECREF(different.list);
    PyMem_Free(different.hashes);
    PyMem_Free(different.slots);
    release_texts(&keys);
    return answer;
}

/* -- MD5 (RFC 1321) ------------------------------------------------------------------------------------------------ */

static uint32_t SINES[64];
static const unsigned char TURNS[64] = {7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22,
                                        5, 9,  14, 20, 5, 9,  14, 20, 5, 9,  14, 20, 5, 9,  14, 20,
                                        4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23,
                                        6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21};

/* Every step waits for the one before, so several texts of one size are read at once. */
#ifdef __GNUC__
#define LANES 8
typedef uint32_t Lanes __attribute__((vector_size(LANES * 4)));
#else
#define LANES 1
typedef uint32_t Lanes;
#endif

#define STEP(mix, word)                                                                                                \
    do {                                                                                                               \
        Lanes next = (mix) + a + SINES[at] + words[word];                                                              \
        a = d, d = c, c = b;                                                                                           \
        b += next << TURNS[at] | next >> (32 - TURNS[at]);                                                             \
    } while (0)

static void digest_blocks(Lanes state[4], const Lanes words[16]) {
    Lanes a = state[0], b = state[1], c = state[2], d = state[3];
    int at = 0;
    for (; at < 16; at++) STEP((b & c) | (~b & d), at);
    for (; at < 32; at++) STEP((d & b) | (~d & c), (5 * at + 1) & 15);
    for (; at < 48; at++) STEP(b ^ c ^ d, (3 * at + 5) & 15);
    for (; at < 64; at++) STEP(c ^ (b | ~d), (7 * at) & 15);
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static uint32_t little_endian(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Read a block of a text as MD5 pads it: a one bit, zeros, and the size in bits in the last eight bytes. */
static void read_block(const unsigned char *text, size_t size, size_t block, size_t blocks, unsigned char *to) {
    size_t from = block * 64, some = from < size ? size - from : 0;
    if (some > 64) some = 64;
    if (some) memcpy(to, text + from, some);
    memset(to + some, 0, 64 - some);
    if (some < 64 && from + some == size && from <= size) to[some] = 0x80;
    if (block + 1 == blocks)
        for (int byte = 0; byte < 8; byte++) to[56 + byte] = (unsigned char)((uint64_t)size * 8 >> 8 * byte);
}

typedef struct {
    const unsigned char *at[LANES];
    size_t size[LANES];
    Py_ssize_t row[LANES];
    int count;
} Queue;

/* Digest the queued texts: the first eight bytes of each MD5 as a signed big-endian number. */
static void digest(Queue *queue, size_t blocks, int64_t *hashes) {
    uint32_t first[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    Lanes state[4], words[16];
    for (int part = 0; part < 4; part++) state[part] = (Lanes){0} + first[part];
    for (size_t block = 0; block < blocks; block++) {
        uint32_t of_lane[16][LANES] = {{0}};
        for (int lane = 0; lane < queue->count; lane++) {
            unsigned char bytes[64];
            read_block(queue->at[lane], queue->size[lane], block, blocks, bytes);
            for (int word = 0; word < 16; word++) of_lane[word][lane] = little_endian(bytes + word * 4);
        }
        memcpy(words, of_lane, sizeof words);
        digest_blocks(state, words);
    }
    uint32_t digests[2][LANES];
    memcpy(digests, state, sizeof digests);
    for (int lane = 0; lane < queue->count; lane++) {
        uint64_t hash = 0;
        for (int byte = 0; byte < 8; byte++) hash = hash << 8 | ((digests[byte / 4][lane] >> 8 * (byte % 4)) & 0xFF);
        hashes[queue->row[lane]] = (int64_t)hash;
    }
    queue->count = 0;
}

#define QUEUES 20

PyDoc_STRVAR(
    hashes_doc,
    "hashes(offsets, text)\n--\n\n"
    "Return columns.summarize.hash64 of each text, as 8 native bytes each. Texts are given as Arrow has them.");

static PyObject *hashes(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *offsets, *bytes;
    Texts texts;
    if (!PyArg_ParseTuple(arguments, "OO:hashes", &offsets, &bytes)) return NULL;
    if (texts_of(offsets, bytes, &texts) < 0) return NULL;
    PyObject *answer = new_words((size_t)texts.count);
    if (answer != NULL) {
        int64_t *hash = words_of(answer);
        /* Texts that wait for others of as many blocks; the last queue is for longer ones, which do not wait. */
        Queue queues[QUEUES + 1] = {{.count = 0}};
        for (Py_ssize_t row = 0; row < texts.count; row++) {
            size_t size = (size_t)(texts.ends[row + 1] - texts.ends[row]), blocks = (size + 8) / 64 + 1;
            Queue *queue = &queues[blocks < QUEUES ? blocks : QUEUES];
            queue->at[queue->count] = (const unsigned char *)texts.text + texts.ends[row];
            queue->size[queue->count] = size;
            queue->row[queue->count++] = row;
            if (queue->count == LANES || blocks >= QUEUES) digest(queue, blocks, hash);
        }
        for (size_t blocks = 1; blocks < QUEUES; blocks++)
            if (queues[blocks].count) digest(&queues[blocks], blocks, hash);
    }
    release_texts(&texts);
    return answer;
}

static PyMethodDef METHODS[] = {
    {"patterns", patterns, METH_VARARGS, patterns_doc},
    {"hashes", hashes, METH_VARARGS, hashes_doc},
    {NULL, NULL, 0, NULL},
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

static int exec(PyObject *Py_UNUSED(module)) {
    fill_classes();
    if (fill_sines() < 0) return -1;
    /* Once per process: a table may be in use in another interpreter. */
    return secret.word[0] == 0 ? draw_secret(&secret) : 0;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, exec}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trailsift._native._keys",
    .m_doc = "Patterns and hashes of object keys.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__keys(void) { return PyModuleDef_Init(&MODULE); }
