/* The records of one log object in CloudTrail's own form, cut into what rows have for themselves and names for what
 * they share. An accelerator of columnar.py: the same rows come out without it, more slowly.
 *
 * A record is regular where its members are known, of the expected type and written without blanks; everything else
 * is handed back by position, and a text that is not exactly {"Records":[...]} is not touched at all. The names of a
 * record are its bytes without what varies from call to call: time, ids, object key, byte counts. What a name stands
 * for is worked out by Python, once (Scanner's callback), so nothing here knows what a member means.
 *
 * Every input is a bytes object: its terminating NUL is no legal byte in JSON, so no scan runs past the end.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* -- growing memory ------------------------------------------------------------------------------------------------ */

typedef struct {
    char *at;
    size_t size, room;
} Buffer;

static char *reserve(Buffer *buffer, size_t more) {
    if (buffer->at == NULL || buffer->size + more > buffer->room) {
        size_t room = buffer->room ? buffer->room : 4096;
        while (room < buffer->size + more) room *= 2;
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

static int append(Buffer *buffer, const void *from, size_t size) {
    char *to = reserve(buffer, size);
    if (to == NULL) return -1;
    memcpy(to, from, size);
    buffer->size += size;
    return 0;
}

static void release(Buffer *buffer) {
    PyMem_Free(buffer->at);
    memset(buffer, 0, sizeof *buffer);
}

typedef struct {
    const char *at;
    size_t size;
} Slice;

static int is(Slice slice, const char *text, size_t size) {
    return slice.size == size && memcmp(slice.at, text, size) == 0;
}
#define IS(slice, text) is(slice, text, sizeof text - 1)

/* -- JSON ---------------------------------------------------------------------------------------------------------- */

enum { PLAIN, QUOTE, ESCAPE, CONTROL, HIGH };
enum { HAS_ESCAPE = 1, HAS_HIGH = 2 };
static unsigned char KIND[256];

static void fill_kinds(void) {
    memset(KIND, CONTROL, 32);
    memset(KIND + 128, HIGH, 128);
    KIND['"'] = QUOTE;
    KIND['\\'] = ESCAPE;
}

static int is_hex(char sign) {
    return (sign >= '0' && sign <= '9') || (sign >= 'a' && sign <= 'f') || (sign >= 'A' && sign <= 'F');
}

/* How many of the bytes at `at`, of WIDE that can be read there, are plain. */
#if defined(__AVX2__)
#include <immintrin.h>
#define WIDE 32
static int plain_bytes(const char *at) {
    __m256i wide = _mm256_loadu_si256((const __m256i *)at);
    /* Signed: bytes above 127 are below 32 too. */
    __m256i odd = _mm256_or_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(32), wide),
                                  _mm256_or_si256(_mm256_cmpeq_epi8(wide, _mm256_set1_epi8('"')),
                                                  _mm256_cmpeq_epi8(wide, _mm256_set1_epi8('\\'))));
    unsigned mask = (unsigned)_mm256_movemask_epi8(odd);
    return mask ? __builtin_ctz(mask) : WIDE;
}
#elif defined(__SSE2__)
#include <emmintrin.h>
#define WIDE 16
static int plain_bytes(const char *at) {
    __m128i sixteen = _mm_loadu_si128((const __m128i *)at);
    /* Signed: bytes above 127 are below 32 too. */
    __m128i odd = _mm_or_si128(_mm_cmplt_epi8(sixteen, _mm_set1_epi8(32)),
                               _mm_or_si128(_mm_cmpeq_epi8(sixteen, _mm_set1_epi8('"')),
                                            _mm_cmpeq_epi8(sixteen, _mm_set1_epi8('\\'))));
    int mask = _mm_movemask_epi8(odd);
    return mask ? __builtin_ctz((unsigned)mask) : WIDE;
}
#else
#define WIDE 16
static int plain_bytes(const char *at) {
    int plain = 0;
    while (plain < WIDE && KIND[(unsigned char)at[plain]] == PLAIN) plain++;
    return plain;
}
#endif

/* The closing quote of a string whose first byte is at `at`; NULL where it is no valid string. */
static const char *string_end(const char *at, const char *end, int *flags) {
    for (;;) {
        while (end - at >= WIDE) {
            int plain = plain_bytes(at);
            at += plain;
            if (plain < WIDE) break;
        }
        unsigned char kind = KIND[(unsigned char)*at];
        while (kind == PLAIN) kind = KIND[(unsigned char)*++at];
        if (kind == QUOTE) return at;
        if (kind == HIGH) {
            *flags |= HAS_HIGH;
            at++;
        } else if (kind == ESCAPE) {
            *flags |= HAS_ESCAPE;
            switch (at[1]) {
                case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
                    at += 2;
                    break;
                case 'u':
                    if (!is_hex(at[2]) || !is_hex(at[3]) || !is_hex(at[4]) || !is_hex(at[5])) return NULL;
                    at += 6;
                    break;
                default:
                    return NULL;
            }
        } else {
            return NULL;
        }
    }
}

static const char *digits(const char *at) {
    if (*at < '0' || *at > '9') return NULL;
    while (*at >= '0' && *at <= '9') at++;
    return at;
}

static const char *number_end(const char *at) {
    if (*at == '-') at++;
    if (*at == '0')
        at++;
    else if ((at = digits(at)) == NULL)
        return NULL;
    if (*at == '.' && (at = digits(at + 1)) == NULL) return NULL;
    if (*at == 'e' || *at == 'E') {
        at++;
        if (*at == '+' || *at == '-') at++;
        at = digits(at);
    }
    return at;
}

#define DEPTH_LIMIT 48

/* Behind the value at `at`; NULL where it is not valid, has blanks in it or is nested too deeply. */
static const char *value_end(const char *at, const char *end, int depth, int *flags) {
    switch (*at) {
        case '"':
            at = string_end(at + 1, end, flags);
            return at == NULL ? NULL : at + 1;
        case '{':
            if (depth == 0) return NULL;
            if (*++at == '}') return at + 1;
            for (;;) {
                if (*at != '"' || (at = string_end(at + 1, end, flags)) == NULL || *++at != ':') return NULL;
                if ((at = value_end(at + 1, end, depth - 1, flags)) == NULL) return NULL;
                if (*at == '}') return at + 1;
                if (*at++ != ',') return NULL;
            }
        case '[':
            if (depth == 0) return NULL;
            if (*++at == ']') return at + 1;
            for (;;) {
                if ((at = value_end(at, end, depth - 1, flags)) == NULL) return NULL;
                if (*at == ']') return at + 1;
                if (*at++ != ',') return NULL;
            }
        case 't':
            return end - at >= 4 && memcmp(at, "true", 4) == 0 ? at + 4 : NULL;
        case 'n':
            return end - at >= 4 && memcmp(at, "null", 4) == 0 ? at + 4 : NULL;
        case 'f':
            return end - at >= 5 && memcmp(at, "false", 5) == 0 ? at + 5 : NULL;
        default:
            return number_end(at);
    }
}

/* Whether a stretch is UTF-8 as Python reads it: no overlong forms, no surrogates, nothing above U+10FFFF. */
static int is_utf8(const unsigned char *at, const unsigned char *end) {
    while (at < end) {
        unsigned char lead = *at++;
        if (lead < 0x80) continue;
        int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || end - at < more) return 0;
        if ((lead == 0xE0 && *at < 0xA0) || (lead == 0xED && *at > 0x9F)) return 0;
        if ((lead == 0xF0 && *at < 0x90) || (lead == 0xF4 && *at > 0x8F)) return 0;
        while (more--)
            if ((*at++ & 0xC0) != 0x80) return 0;
    }
    return 1;
}

/* One member of an object that is known to be valid. */
typedef struct {
    Slice name, value;
    int flags; /* of the value */
} Member;

/* The member at `at`; behind it, or NULL at the closing brace. */
static const char *next_member(const char *at, const char *end, Member *member) {
    int flags = 0;
    if (*at == ',' || *at == '{') at++;
    if (*at != '"') return NULL;
    const char *quote = string_end(at + 1, end, &flags);
    member->name = (Slice){at + 1, (size_t)(quote - at - 1)};
    member->flags = 0;
    at = quote + 2;
    const char *behind = value_end(at, end, DEPTH_LIMIT, &member->flags);
    member->value = (Slice){at, (size_t)(behind - at)};
    return behind;
}

/* The members of one object, found while it is checked. */
#define PARTS 40
typedef struct {
    Member at[PARTS];
    int count; /* -1: more than there is room for, or no object */
} Parts;

/* value_end of an object, whose members are put into `parts`. */
static const char *object_end(const char *at, const char *end, int *flags, Parts *parts) {
    parts->count = 0;
    if (*++at == '}') return at + 1;
    for (;;) {
        Member member = {.flags = 0};
        if (*at != '"') return NULL;
        const char *quote = string_end(at + 1, end, flags);
        if (quote == NULL || quote[1] != ':') return NULL;
        member.name = (Slice){at + 1, (size_t)(quote - at - 1)};
        const char *behind = value_end(quote + 2, end, DEPTH_LIMIT - 1, &member.flags);
        if (behind == NULL) return NULL;
        member.value = (Slice){quote + 2, (size_t)(behind - quote - 2)};
        *flags |= member.flags;
        if (parts->count >= 0 && parts->count < PARTS) parts->at[parts->count++] = member;
        else parts->count = -1;
        at = behind;
        if (*at == '}') return at + 1;
        if (*at++ != ',') return NULL;
    }
}

/* -- members of a record ------------------------------------------------------------------------------------------- */

enum { TEXT, RAW, FLAG };
typedef struct {
    const char *name;
    unsigned char size, kind;
} Known;

#define KNOWN(name, kind) {name, sizeof name - 1, kind}
/* In the order in which CloudTrail writes them; regular._Record has the same. */
enum {
    VERSION, IDENTITY, TIME, SOURCE, NAME, REGION, ADDRESS, AGENT, ERROR_CODE, ERROR_MESSAGE, PARAMETERS, RESPONSE,
    ADDITIONAL, REQUEST, ID, READ_ONLY, RESOURCES, TYPE, API_VERSION, MANAGEMENT, RECIPIENT, SHARED, ENDPOINT,
    ENDPOINT_ACCOUNT, CATEGORY, TLS, FROM_CONSOLE, MEMBERS
};
static const Known KNOWN_MEMBERS[MEMBERS] = {
    KNOWN("eventVersion", TEXT), KNOWN("userIdentity", RAW), KNOWN("eventTime", TEXT), KNOWN("eventSource", TEXT),
    KNOWN("eventName", TEXT), KNOWN("awsRegion", TEXT), KNOWN("sourceIPAddress", TEXT), KNOWN("userAgent", TEXT),
    KNOWN("errorCode", TEXT), KNOWN("errorMessage", TEXT), KNOWN("requestParameters", RAW),
    KNOWN("responseElements", RAW), KNOWN("additionalEventData", RAW), KNOWN("requestID", TEXT),
    KNOWN("eventID", TEXT), KNOWN("readOnly", FLAG), KNOWN("resources", RAW), KNOWN("eventType", TEXT),
    KNOWN("apiVersion", TEXT), KNOWN("managementEvent", FLAG), KNOWN("recipientAccountId", TEXT),
    KNOWN("sharedEventID", TEXT), KNOWN("vpcEndpointId", TEXT), KNOWN("vpcEndpointAccountId", TEXT),
    KNOWN("eventCategory", TEXT), KNOWN("tlsDetails", RAW), KNOWN("sessionCredentialFromConsole", TEXT),
};
#define BIT(member) (1u << (member))
#define REQUIRED (BIT(VERSION) | BIT(TIME) | BIT(SOURCE) | BIT(NAME) | BIT(ID))
/* Not part of a name as they are: they vary, or a part of them does. */
#define OWN (BIT(TIME) | BIT(ID) | BIT(REQUEST) | BIT(ERROR_MESSAGE) | BIT(SHARED))
/* What a place is made of; regular.Place has the same. */
#define PLACE (BIT(ADDRESS) | BIT(AGENT) | BIT(ENDPOINT) | BIT(TLS))
#define CUT (BIT(PARAMETERS) | BIT(RESPONSE) | BIT(ADDITIONAL) | BIT(RESOURCES))

/* Two stretches of a record are the same text in many: what is called from where, and how a record ends. What a name
 * has of them is a number each for what they say of what is done, and of the place. */
enum { CALL, CLOSE, STRETCHES };
enum { OF_WHAT, OF_PLACE, SIDES };
static const uint32_t SAID[STRETCHES][SIDES] = {
    {BIT(SOURCE) | BIT(NAME) | BIT(REGION), BIT(ADDRESS) | BIT(AGENT)},
    {BIT(TYPE) | BIT(API_VERSION) | BIT(MANAGEMENT) | BIT(RECIPIENT) | BIT(ENDPOINT_ACCOUNT) | BIT(CATEGORY) |
         BIT(FROM_CONSOLE),
     BIT(ENDPOINT) | BIT(TLS)},
};
#define SAID_BY(stretch) (SAID[stretch][OF_WHAT] | SAID[stretch][OF_PLACE])
#define STRETCHED (SAID_BY(CALL) | SAID_BY(CLOSE))

typedef struct {
    Slice members[MEMBERS];
    int flags[MEMBERS];
    uint32_t present;
    int64_t time, who;
    size_t slot; /* of its userIdentity among the recent ones */
    /* Of its stretches: where they are among the recent ones, their text where it can be learnt, which members they
     * have, and what these say. */
    size_t slots[STRETCHES];
    Slice stretches[STRETCHES];
    uint32_t said_in[STRETCHES], known;
    int64_t said[STRETCHES][SIDES];
    unsigned char id[16];
    Slice key;
    int key_is_item, kept, has_in, has_out, floats;
    int64_t bytes_in, bytes_out;
    Parts parameters, additional;
    /* Which parts have columns of their own: the key, the counts. */
    uint64_t without, counted;
} Record;

/* -- columns ------------------------------------------------------------------------------------------------------- */

enum { C_ID, C_REQUEST, C_ERROR, C_SHARED, C_KEY, C_PARAMETERS, C_ADDITIONAL, C_RESPONSE, TEXTS };
static const char *TEXT_NAMES[TEXTS] = {
    "event_id", "request_id", "error_message", "shared_event_id",
    "object_key", "request_parameters", "additional_event_data", "response_elements",
};
enum { N_WHO, N_PLACE, N_WHAT, N_TIME, N_OBJECT, N_ID, N_CHECK, N_IN, N_OUT, NUMBERS };
static const char *NUMBER_NAMES[NUMBERS] = {"who", "place", "what", "event_time", "object",
                                             "id", "check", "bytes_in", "bytes_out"};

typedef struct {
    Buffer bytes;
    int32_t *ends; /* one a row */
    char *valid;   /* one a row */
} TextColumn;

typedef struct {
    uint64_t hash;
    size_t start;
    uint32_t size;
    int64_t code;
} Entry;

/* What names of one kind stand for. */
typedef struct {
    Entry *entries;
    size_t room, used;
    Buffer texts;
} Names;
enum { WHO, WHERE, WHAT, KINDS };
#define RECENT_BITS 11
#define RECENT (1 << RECENT_BITS)

/* A stretch that was seen before. */
#define STRETCH_BYTES 512
typedef struct {
    size_t size; /* 0: none */
    uint32_t present;
    uint32_t name_at, name_size; /* of the value of eventName, in a call */
    int64_t said[SIDES];
    char text[STRETCH_BYTES];
} KnownStretch;

typedef struct {
    PyObject_HEAD
    PyObject *shared, *check;
    TextColumn texts[TEXTS];
    char *numbers[NUMBERS];
    char *has_in, *has_out;
    /* What is one a row has room for `room` of them. */
    size_t rows, room;
    /* Rows ever taken without their texts. */
    size_t thin;
    Buffer name, kept, additional, unescaped;
    Names names[KINDS];
    /* What followed a member the last time; at the end, what a record began with. */
    int guess[MEMBERS + 1];
    /* Identities and stretches seen lately, by some of their bytes. */
    Entry recent[RECENT];
    KnownStretch *recent_stretches[STRETCHES];
    /* Numbers of what stretches say. */
    Names said[STRETCHES][SIDES];
} Scanner;

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

/* Makes room for another row. */
static int more_rows(Scanner *scanner) {
    if (scanner->rows < scanner->room) return 0;
    size_t room = scanner->room ? scanner->room * 2 : 1024;
    for (int at = 0; at < NUMBERS; at++)
        if (resize(&scanner->numbers[at], room * WIDTHS[at]) < 0) return -1;
    if (resize(&scanner->has_in, room) < 0 || resize(&scanner->has_out, room) < 0) return -1;
    for (int at = 0; at < TEXTS; at++)
        if (resize(&scanner->texts[at].ends, room * 4) < 0 || resize(&scanner->texts[at].valid, room) < 0) return -1;
    scanner->room = room;
    return 0;
}

static int put_text(Scanner *scanner, int which, Slice text, int present) {
    TextColumn *column = &scanner->texts[which];
    if (present && append(&column->bytes, text.at, text.size) < 0) return -1;
    column->ends[scanner->rows] = (int32_t)column->bytes.size;
    column->valid[scanner->rows] = (char)present;
    return 0;
}

static void put_number(Scanner *scanner, int which, const void *value) {
    memcpy(scanner->numbers[which] + scanner->rows * WIDTHS[which], value, WIDTHS[which]);
}

/* -- time and id --------------------------------------------------------------------------------------------------- */

static int two(const char *at) {
    if (at[0] < '0' || at[0] > '9' || at[1] < '0' || at[1] > '9') return -1;
    return (at[0] - '0') * 10 + at[1] - '0';
}

/* Microseconds of 2024-01-15T08:30:00Z in the years 2002 to 9998; 0 for every other way to write a time. */
static int64_t time_of(Slice text) {
    static const int LENGTHS[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *at = text.at;
    if (text.size != 20 || at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':' ||
        at[19] != 'Z')
        return 0;
    int century = two(at), year = two(at + 2), month = two(at + 5), day = two(at + 8);
    int hour = two(at + 11), minute = two(at + 14), second = two(at + 17);
    if (century < 0 || year < 0 || month < 1 || month > 12 || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
        second < 0 || second > 59)
        return 0;
    year += century * 100;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 2002 || year > 9998 || day < 1 || day > LENGTHS[month - 1] + (leap && month == 2)) return 0;
    /* Days since 1970 by years that begin in March, so that the leap day comes last. */
    int64_t shifted = year - (month <= 2), era = shifted / 400, of_era = shifted - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t days = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000000;
}

/* Values of hexadecimal digits as UUIDs have them; 255 for every other sign. */
static unsigned char NIBBLE[256];

static void fill_nibbles(void) {
    memset(NIBBLE, 255, sizeof NIBBLE);
    for (int digit = 0; digit < 16; digit++) NIBBLE[(unsigned char)"0123456789abcdef"[digit]] = (unsigned char)digit;
}

/* The 16 bytes of a UUID in its usual form. */
static int uuid_of(Slice text, unsigned char *id) {
    static const unsigned char PLACES[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
    const char *at = text.at;
    if (text.size != 36 || at[8] != '-' || at[13] != '-' || at[18] != '-' || at[23] != '-') return 0;
    unsigned char all = 0;
    for (int byte = 0; byte < 16; byte++) {
        unsigned char high = NIBBLE[(unsigned char)at[PLACES[byte]]], low = NIBBLE[(unsigned char)at[PLACES[byte] + 1]];
        all |= high | low;
        id[byte] = (unsigned char)(high << 4 | low);
    }
    return all < 16;
}

/* -- names --------------------------------------------------------------------------------------------------------- */

enum { NO_VARYING, PART, LIST, ITEMS, ITERATOR, COPY, SESSION, SEGMENT, STATEMENT };

/* Which request parameters vary from call to call and say nothing about the resource; regular._VARYING has the same. */
static int varying_of(Slice name) {
    switch (name.size) {
        case 4:
            return IS(name, "Scan") ? SEGMENT : NO_VARYING;
        case 9:
            return IS(name, "GetObject") || IS(name, "ListParts") ? PART : NO_VARYING;
        case 10:
            return IS(name, "HeadObject") || IS(name, "UploadPart") ? PART
                   : IS(name, "GetRecords")                         ? ITERATOR
                   : IS(name, "CopyObject")                         ? COPY
                   : IS(name, "AssumeRole")                         ? SESSION
                                                                    : NO_VARYING;
        case 11:
            return IS(name, "ListObjects") ? LIST : NO_VARYING;
        case 12:
            return IS(name, "BatchGetItem") ? ITEMS : NO_VARYING;
        case 14:
            return IS(name, "BatchWriteItem") ? ITEMS : IS(name, "UploadPartCopy") ? COPY : NO_VARYING;
        case 16:
            return IS(name, "TransactGetItems") ? ITEMS : IS(name, "ExecuteStatement") ? STATEMENT : NO_VARYING;
        case 18:
            return IS(name, "ListObjectVersions")   ? LIST
                   : IS(name, "TransactWriteItems") ? ITEMS
                   : IS(name, "AssumeRoleWithSAML") ? SESSION
                                                    : NO_VARYING;
        case 20:
            return IS(name, "ListMultipartUploads") ? LIST : IS(name, "AbortMultipartUpload") ? PART : NO_VARYING;
        case 23:
            return IS(name, "CompleteMultipartUpload") ? PART : NO_VARYING;
        case 25:
            return IS(name, "AssumeRoleWithWebIdentity") ? SESSION : NO_VARYING;
        default:
            return NO_VARYING;
    }
}

static int is_base64(char sign) {
    return (sign >= 'A' && sign <= 'Z') || (sign >= 'a' && sign <= 'z') || (sign >= '0' && sign <= '9') ||
           sign == '+' || sign == '/' || sign == '=';
}

/* How much of what a copy reads from belongs to the name: a bucket's own name and the slash behind it. -1: none. */
static Py_ssize_t bucket_size(Slice quoted) {
    const char *start = quoted.at, *at = start + 1;
    while ((*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') || *at == '.' || *at == '-') at++;
    return *at == '/' && at > start + 1 ? at + 1 - start : -1;
}

/* How much of a varying member's value belongs to the name all the same; -1 where the member does not vary. */
static Py_ssize_t varies(int varying, Member *member) {
    Slice name = member->name;
    if (varying == SEGMENT) {
        const char *start = member->value.at;
        return IS(name, "segment") && digits(start) == start + member->value.size ? 0 : -1;
    }
    if (varying == NO_VARYING || member->value.at[0] != '"' || (member->flags & HAS_ESCAPE)) return -1;
    if (varying == COPY && IS(name, "x-amz-copy-source")) return bucket_size(member->value);
    if (varying == PART || varying == COPY)
        return IS(name, "uploadId") || IS(name, "partNumber") || IS(name, "versionId") ? 0 : -1;
    if (varying == LIST)
        return IS(name, "prefix") || IS(name, "marker") || IS(name, "start-after") ||
                       IS(name, "continuation-token") || IS(name, "max-keys")
                   ? 0
                   : -1;
    if (varying == SESSION) return IS(name, "roleSessionName") ? 0 : -1;
    /* The stream's ARN stands before the last bar. */
    if (varying != ITERATOR || !IS(name, "shardIterator")) return -1;
    const char *start = member->value.at, *last = start + member->value.size - 1, *at = last;
    while (at > start && is_base64(at[-1])) at--;
    return at > start && at < last && at[-1] == '|' ? at - start : -1;
}

/* An item key: an object of strings without escapes, one at least. Behind it, or NULL. */
static const char *item_end(const char *at, const char *end) {
    Member member;
    const char *behind = NULL;
    if (*at != '{' || at[1] == '}') return NULL;
    while ((at = next_member(at, end, &member)) != NULL) {
        behind = at;
        if (member.value.at[0] != '"' || (member.flags & HAS_ESCAPE) ||
            memchr(member.name.at, '\\', member.name.size) != NULL)
            return NULL;
    }
    return behind + 1;
}

static int mark(Buffer *buffer, char sign) { return append(buffer, &sign, 1); }

/* What stands where something was cut out of a name. A stretch of text begins with its own mark and its size, so that
 * no two records of different lines can have one name, whoever chose the texts in them. */
enum { STRETCH, KEY_TEXT, KEY_ITEM, VARYING, BATCH_ITEM, KEY_IN_ARN, PREFIX, END };

static int put_slice(Buffer *name, Slice slice) {
    uint32_t size = (uint32_t)slice.size;
    char *to = reserve(name, 1 + sizeof size + size);
    if (to == NULL) return -1;
    *to = STRETCH;
    memcpy(to + 1, &size, sizeof size);
    memcpy(to + 1 + sizeof size, slice.at, size);
    name->size += 1 + sizeof size + size;
    return 0;
}

/* An object of some of another's members: those whose bit in `without` is not set. */
static int put_members(Buffer *to, const Parts *parts, uint64_t without) {
    to->size = 0;
    if (mark(to, '{') < 0) return -1;
    for (int part = 0; part < parts->count; part++) {
        if (without >> part & 1) continue;
        const Member *member = &parts->at[part];
        const char *start = member->name.at - 1;
        if ((to->size > 1 && mark(to, ',') < 0) ||
            append(to, start, (size_t)(member->value.at + member->value.size - start)) < 0)
            return -1;
    }
    return mark(to, '}');
}

/* Where `what`, of two bytes at least, stands first; NULL where it does not. */
static const char *find(const char *at, const char *end, const char *what, size_t size) {
#ifdef __SSE2__
    /* Places where both its first and its last byte stand are few. */
    const __m128i first = _mm_set1_epi8(what[0]), last = _mm_set1_epi8(what[size - 1]);
    for (; end - at >= (Py_ssize_t)size + 15; at += 16) {
        __m128i begins = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)at), first);
        __m128i ends = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(at + size - 1)), last);
        for (int mask = _mm_movemask_epi8(_mm_and_si128(begins, ends)); mask; mask &= mask - 1) {
            const char *here = at + __builtin_ctz((unsigned)mask);
            if (memcmp(here, what, size) == 0) return here;
        }
    }
#endif
    while ((size_t)(end - at) >= size && (at = memchr(at, what[0], (size_t)(end - at) - size + 1)) != NULL) {
        if (memcmp(at, what, size) == 0) return at;
        at++;
    }
    return NULL;
}

/* requestParameters that a row keeps for itself: all of it, or without what is cut out. */
enum { WHOLE = 1, CUT_OUT };

/* Behind a list's items from `at` on, where all are item keys; NULL where not. */
static const char *items_end(const char *at, const char *end) {
    while ((at = item_end(at, end)) != NULL && *at == ',') at++;
    return at != NULL && *at == ']' ? at : NULL;
}

/* requestParameters of batches: without the items. */
static int name_items(Scanner *scanner, Record *record) {
    Slice text = record->members[PARAMETERS];
    const char *at = text.at, *end = at + text.size, *from = at, *found;
    while ((found = find(from, end, "\"key", 4)) != NULL) {
        const char *items = NULL, *behind = NULL;
        if (memcmp(found, "\"key\":{", 7) == 0) behind = item_end(items = found + 6, end);
        else if (memcmp(found, "\"keys\":[{", 9) == 0) behind = items_end(items = found + 8, end);
        from = found + 4;
        if (behind == NULL) continue;
        record->kept = WHOLE;
        if (put_slice(&scanner->name, (Slice){at, (size_t)(items - at)}) < 0 || mark(&scanner->name, BATCH_ITEM) < 0)
            return -1;
        from = at = behind;
    }
    return put_slice(&scanner->name, (Slice){at, (size_t)(end - at)});
}

#define STATEMENT_BYTES 8192

/* A PartiQL statement without its texts: 1, or 0 where there are none or it is not sure which they are (regular.py,
 * _without_literals), and nothing is written. -1: error. */
static int name_statement(Buffer *name, Slice text) {
    const char *end = text.at + text.size, *at = text.at, *from = at;
    if (text.at[0] != '"' || text.size > STATEMENT_BYTES + 2 || find(at, end, "\\u", 2) != NULL) return 0;
    size_t before = name->size;
    while ((at = memchr(at, '\'', (size_t)(end - at))) != NULL) {
        const char *behind = memchr(at + 1, '\'', (size_t)(end - at - 1));
        if (behind == NULL || memchr(at, '\\', (size_t)(behind - at)) != NULL) {
            name->size = before;
            return 0;
        }
        if (put_slice(name, (Slice){from, (size_t)(at - from)}) < 0 || mark(name, VARYING) < 0) return -1;
        from = at = behind + 1;
    }
    if (from == text.at) return 0;
    return put_slice(name, (Slice){from, (size_t)(end - from)}) < 0 ? -1 : 1;
}

/* requestParameters: the key and what varies go out, and are marked. 1: regular, 0: not, -1: error. */
static int name_parameters(Scanner *scanner, Record *record) {
    Slice text = record->members[PARAMETERS];
    Buffer *name = &scanner->name;
    if (text.size == 0 || text.at[0] != '{') return put_slice(name, text) < 0 ? -1 : 1;
    int varying = varying_of(record->members[NAME]);
    if (varying == ITEMS) return name_items(scanner, record) < 0 ? -1 : 1;
    if (record->parameters.count < 0) return 0;
    const char *end = text.at + text.size, *from = text.at;
    for (int part = 0; part < record->parameters.count; part++) {
        Member member = record->parameters.at[part];
        Slice value = member.value;
        char sign = 0;
        /* Where what is cut out begins. */
        const char *cut = value.at;
        int is_key = IS(member.name, "key"), is_prefix = varying == LIST && IS(member.name, "prefix");
        if (is_key) {
            if (varying == LIST || record->key.at != NULL) return 0;
            if (value.at[0] == '"' && value.size > 2) {
                if (member.flags & HAS_ESCAPE) return 0;
                record->key = (Slice){value.at + 1, value.size - 2};
                sign = KEY_TEXT;
            } else if (value.at[0] == '{' && item_end(value.at, end) != NULL) {
                record->key = value;
                record->key_is_item = 1;
                sign = KEY_ITEM;
            }
            if (sign) record->without |= 1ULL << part;
        } else if (is_prefix && value.at[0] == '"' && value.size > 2) {
            /* A listing's prefix is its key, and stays where it is. */
            if (record->key.at != NULL || member.flags & HAS_ESCAPE) return 0;
            record->key = (Slice){value.at + 1, value.size - 2};
            record->kept = CUT_OUT;
            sign = PREFIX;
        } else if (varying == STATEMENT && IS(member.name, "statement")) {
            size_t before = name->size;
            if (put_slice(name, (Slice){from, (size_t)(value.at - from)}) < 0) return -1;
            int done = name_statement(name, value);
            if (done < 0) return -1;
            if (done) {
                record->kept = CUT_OUT;
                from = value.at + value.size;
                continue;
            }
            name->size = before;
        }
        if (!sign) {
            Py_ssize_t fixed = varies(varying, &member);
            if (fixed < 0) continue;
            record->kept = CUT_OUT;
            cut += fixed;
            sign = VARYING;
        }
        if (put_slice(name, (Slice){from, (size_t)(cut - from)}) < 0 || mark(name, sign) < 0) return -1;
        from = value.at + value.size;
    }
    return put_slice(name, (Slice){from, (size_t)(end - from)}) < 0 ? -1 : 1;
}

/* resources: with the key cut out. */
static int name_resources(Scanner *scanner, Record *record) {
    Slice text = record->members[RESOURCES], key = record->key;
    const char *at = text.at, *end = at + text.size, *found;
    if (key.at != NULL && !record->key_is_item && text.size) {
        const char *from = at;
        while ((found = find(from, end, key.at, key.size)) != NULL) {
            from = found + 1;
            if (found == text.at || found[-1] != '/' || found[key.size] != '"') continue;
            if (put_slice(&scanner->name, (Slice){at, (size_t)(found - at)}) < 0 || mark(&scanner->name, KEY_IN_ARN) < 0)
                return -1;
            from = at = found + key.size;
        }
    }
    return put_slice(&scanner->name, (Slice){at, (size_t)(end - at)});
}

/* A byte count: digits, with ".0" behind them perhaps. */
static int count_of(Slice text, int64_t *count, int *is_float) {
    if (text.size > 2 && memcmp(text.at + text.size - 2, ".0", 2) == 0) {
        *is_float = 1;
        text.size -= 2;
    }
    if (text.size == 0 || text.size > 15) return 0;
    *count = 0;
    for (size_t at = 0; at < text.size; at++) {
        if (text.at[at] < '0' || text.at[at] > '9') return 0;
        *count = *count * 10 + text.at[at] - '0';
    }
    return 1;
}

/* additionalEventData: its byte counts. 1: regular, 0: not, -1: error. */
static int cut_counts(Record *record) {
    static const char COUNT[] = "bytesTransferred";
    Slice text = record->members[ADDITIONAL];
    if (text.size == 0) return 1;
    const char *at = text.at, *end = at + text.size;
    if (*at == 'n') return 0;
    if ((at = find(at, end, COUNT, sizeof COUNT - 1)) == NULL) return 1;
    if (*text.at != '{' || record->additional.count < 0) return 0;
    for (int part = 0; part < record->additional.count; part++) {
        const Member *member = &record->additional.at[part];
        int is_in = IS(member->name, "bytesTransferredIn"), is_float = 0;
        if (!is_in && !IS(member->name, "bytesTransferredOut")) continue;
        if (is_in ? record->has_in : record->has_out) return 0;
        if (!count_of(member->value, is_in ? &record->bytes_in : &record->bytes_out, &is_float)) return 0;
        *(is_in ? &record->has_in : &record->has_out) = 1;
        if (is_float) record->floats |= is_in ? 1 : 2;
        record->counted |= 1ULL << part;
        /* The word must stand nowhere else. */
        if (at != member->name.at) return 0;
        at = find(at + sizeof COUNT - 1, end, COUNT, sizeof COUNT - 1);
        if (at == NULL) return 1;
    }
    return at == NULL;
}

/* Writes the name of what is done. `nobody`: userIdentity names no account. 1: regular, 0: not, -1: error. */
static int name_what(Scanner *scanner, Record *record, int nobody) {
    scanner->name.size = 0;
    if (!cut_counts(record)) return 0;
    uint32_t present = record->present & ~(OWN | PLACE);
    if (append(&scanner->name, &present, sizeof present) < 0 || mark(&scanner->name, (char)record->floats) < 0 ||
        mark(&scanner->name, (char)nobody) < 0)
        return -1;
    for (int stretch = 0; stretch < STRETCHES; stretch++)
        if (append(&scanner->name, &record->said[stretch][OF_WHAT], sizeof(int64_t)) < 0) return -1;
    /* Whose account it is matters where the record does not say. */
    uint32_t whole = present & ~(CUT | STRETCHED | BIT(IDENTITY));
    if (!(present & BIT(RECIPIENT))) whole |= present & BIT(IDENTITY);
    for (int member = 0; member < MEMBERS; member++)
        if (whole & BIT(member) && put_slice(&scanner->name, record->members[member]) < 0) return -1;
    int regular = name_parameters(scanner, record);
    if (regular != 1) return regular;
    return mark(&scanner->name, END) < 0 || name_resources(scanner, record) < 0 ? -1 : 1;
}

static int name_place(Scanner *scanner, const Record *record) {
    scanner->name.size = 0;
    uint32_t present = record->present & PLACE;
    if (append(&scanner->name, &present, sizeof present) < 0) return -1;
    for (int stretch = 0; stretch < STRETCHES; stretch++)
        if (append(&scanner->name, &record->said[stretch][OF_PLACE], sizeof(int64_t)) < 0) return -1;
    return 0;
}

static uint64_t mixed(uint64_t hash, const char *at) {
    uint64_t eight;
    memcpy(&eight, at, 8);
    hash = (hash ^ eight) * 0xD6E8FEB86659FD93ULL;
    return hash ^ hash >> 32;
}

/* In four lanes, since each step waits for the one before. */
static uint64_t hash_of(const char *at, size_t size) {
    uint64_t hash = 0x9E3779B97F4A7C15ULL ^ size;
    if (size >= 64) {
        uint64_t second = hash + 1, third = hash + 2, fourth = hash + 3;
        for (; size >= 32; at += 32, size -= 32) {
            hash = mixed(hash, at);
            second = mixed(second, at + 8);
            third = mixed(third, at + 16);
            fourth = mixed(fourth, at + 24);
        }
        hash = mixed(mixed(mixed(hash, (char *)&second), (char *)&third), (char *)&fourth);
    }
    for (; size >= 8; at += 8, size -= 8) hash = mixed(hash, at);
    char last[8] = {0};
    memcpy(last, at, size);
    return mixed(hash, last);
}

/* Where to look for something among the recent ones, by words of it: `some` of them at `at`, `more` at `then`. All
 * products can be taken at once. */
static size_t recent_slot(const char *at, int some, const char *then, int more) {
    static const uint64_t ODD[16] = {
        0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9, 0x27D4EB2F165667C5, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0xA0761D6478BD642F,
        0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3, 0x1D8E4E27C47D124F, 0x2545F4914F6CDD1D,
        0x369DEA0F31A53F85,
    };
    uint64_t sum = 0, word;
    for (int place = 0; place < some; place++) {
        memcpy(&word, at + 8 * place, 8);
        sum += word * ODD[place];
    }
    for (int place = 0; place < more; place++) {
        memcpy(&word, then + 8 * place, 8);
        sum += word * ODD[some + place];
    }
    return (sum ^ sum >> 32) * ODD[0] >> (64 - RECENT_BITS);
}

static int grow(Names *names) {
    size_t room = names->room ? names->room * 2 : 1024;
    Entry *entries = PyMem_Calloc(room, sizeof *entries);
    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t at = 0; at < names->room; at++) {
        if (names->entries[at].size == 0) continue;
        size_t slot = names->entries[at].hash & (room - 1);
        while (entries[slot].size) slot = (slot + 1) & (room - 1);
        entries[slot] = names->entries[at];
    }
    PyMem_Free(names->entries);
    names->entries = entries;
    names->room = room;
    return 0;
}

enum { IRREGULAR = -1, THIS_TIME = -2, FAILED = -3 };
enum { HAS_KEY = 1, FIXED_KEY = 2, IS_THIN = 4 };

/* Whether a userIdentity names an account in a form that needs no second look. */
static int names_account(Slice user) {
    Parts parts;
    int flags = 0, named = 0;
    /* Python reads no number of more than 4,300 digits. */
    if (user.size > 4096 || user.at[0] != '{') return 0;
    object_end(user.at, user.at + user.size, &flags, &parts);
    for (int part = 0; flags == 0 && part < parts.count; part++) {
        if (!IS(parts.at[part].name, "accountId")) continue;
        if (named || parts.at[part].value.at[0] != '"' || parts.at[part].value.size == 2) return 0;
        named = 1;
    }
    return named;
}

static PyObject *ask(Scanner *scanner, int kind, Record *record, Slice text) {
    Py_ssize_t size = (Py_ssize_t)text.size;
    if (kind == WHO) {
        Slice user = record->present & BIT(IDENTITY) ? record->members[IDENTITY] : (Slice){"", 0};
        return PyObject_CallMethod(scanner->shared, "scan_who", "y#i", user.at, (Py_ssize_t)user.size, names_account(user));
    }
    if (kind == WHERE) return PyObject_CallMethod(scanner->shared, "scan_place", "y#", text.at, size);
    return PyObject_CallMethod(scanner->shared, "scan_what", "y#y#ii", text.at, size,
                               record->key.at ? record->key.at : "", (Py_ssize_t)record->key.size,
                               record->key_is_item, record->kept > 0);
}

/* The entry of a name, or the one to put it into (of size 0); NULL: no memory. */
static Entry *entry_of(Names *names, Slice name, uint64_t hash) {
    if (names->used * 2 >= names->room && grow(names) < 0) return NULL;
    size_t slot = hash & (names->room - 1);
    for (;; slot = (slot + 1) & (names->room - 1)) {
        Entry *entry = &names->entries[slot];
        if (entry->size == 0 || (entry->hash == hash && is(name, names->texts.at + entry->start, entry->size)))
            return entry;
    }
}

static int put_entry(Names *names, Entry *entry, Slice name, uint64_t hash, int64_t code) {
    size_t start = names->texts.size;
    if (append(&names->texts, name.at, name.size) < 0) return -1;
    *entry = (Entry){hash, start, (uint32_t)name.size, code};
    names->used++;
    return 0;
}

/* What a name stands for, as regular.Shared says; IRREGULAR, or THIS_TIME (irregular for a reason of its own). */
static int64_t code_of(Scanner *scanner, int kind, Slice name, Record *record, Slice text, Entry *found) {
    Names *names = &scanner->names[kind];
    uint64_t hash = hash_of(name.at, name.size);
    Entry *entry = entry_of(names, name, hash);
    if (entry == NULL) return FAILED;
    if (entry->size == 0) {
        PyObject *answer = ask(scanner, kind, record, text);
        if (answer == NULL) return FAILED;
        int64_t code = PyLong_AsLongLong(answer);
        Py_DECREF(answer);
        if (PyErr_Occurred()) return FAILED;
        if (code == THIS_TIME) return code;
        if (put_entry(names, entry, name, hash, code) < 0) return FAILED;
    }
    if (found != NULL) *found = *entry;
    return entry->code;
}

/* -- records ------------------------------------------------------------------------------------------------------- */

enum { BROKEN, STRANGE, REGULAR };

/* How members begin in a record, the colon included, for a look at all of it at once. */
static struct {
    char text[32];
    uint32_t mask;
    size_t size;
} BEGINS[MEMBERS];

static void fill_begins(void) {
    for (int member = 0; member < MEMBERS; member++) {
        size_t size = KNOWN_MEMBERS[member].size;
        BEGINS[member].text[0] = '"';
        memcpy(BEGINS[member].text + 1, KNOWN_MEMBERS[member].name, size);
        memcpy(BEGINS[member].text + 1 + size, "\":", 2);
        BEGINS[member].size = size + 3;
        BEGINS[member].mask = (uint32_t)((1ULL << (size + 3)) - 1);
    }
}

static int begins(const char *at, const char *end, int member) {
#ifdef __SSE2__
    if (end - at >= 32) {
        const char *text = BEGINS[member].text;
        __m128i low = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)at), _mm_loadu_si128((const __m128i *)text));
        __m128i high = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(at + 16)),
                                      _mm_loadu_si128((const __m128i *)(text + 16)));
        uint32_t equal = (uint32_t)_mm_movemask_epi8(low) | (uint32_t)_mm_movemask_epi8(high) << 16;
        return !(~equal & BEGINS[member].mask);
    }
#endif
    size_t size = BEGINS[member].size;
    return (size_t)(end - at) > size && memcmp(at, BEGINS[member].text, size) == 0;
}

/* The member whose name begins at `*from`, -1 for one that is not known; `*from` is moved to its value. FAILED where
 * there is no name. */
static int member_of(Scanner *scanner, const char **from, const char *end, int previous, int *flags) {
    const char *at = *from;
    int *guess = &scanner->guess[previous < 0 ? MEMBERS : previous];
    /* Records of one trail have their members in one order, though some have more of them. */
    if (begins(at, end, *guess)) {
        *from = at + BEGINS[*guess].size;
        return *guess;
    }
    const char *quote = *at == '"' ? string_end(at + 1, end, flags) : NULL;
    if (quote == NULL || quote[1] != ':') return FAILED;
    *from = quote + 2;
    Slice name = {at + 1, (size_t)(quote - at - 1)};
    for (int member = 0; member < MEMBERS; member++)
        if (is(name, KNOWN_MEMBERS[member].name, KNOWN_MEMBERS[member].size)) return *guess = member;
    return -1;
}

/* Behind a userIdentity that was seen before, told by some of its bytes and confirmed by all; else NULL. */
static const char *known_identity(Scanner *scanner, const char *at, const char *end, size_t *slot, int64_t *who) {
    *slot = RECENT;
    if (end - at < 128) return NULL;
    /* Role, session and the hour they began stand after the first 22 bytes. */
    *slot = recent_slot(at + 22, 12, at, 0);
    Entry known = scanner->recent[*slot];
    if (known.size == 0 || (size_t)(end - at) < known.size) return NULL;
    if (memcmp(at, scanner->names[WHO].texts.at + known.start, known.size) != 0) return NULL;
    *who = known.code;
    return at + known.size;
}

/* The stretch that begins at `at` behind a member, or STRETCHES. */
static int stretch_at(const char *at, const char *end, int previous) {
    if (previous == TIME) return begins(at, end, SOURCE) ? CALL : STRETCHES;
    return previous >= ID && begins(at, end, TYPE) ? CLOSE : STRETCHES;
}

/* Fills in what a stretch says that was seen before; behind it, or NULL where it was not. */
static const char *known_stretch(Scanner *scanner, int stretch, const char *at, const char *end, Record *record) {
    record->slots[stretch] = RECENT;
    if (end - at < 160) return NULL;
    /* Told by some bytes: of a call by service and action, and where it came from; of an end by what names the
     * resource, since its host has that name in it. */
    if (stretch == CALL) {
        record->slots[stretch] = recent_slot(at + 16, 6, at + 88, 8);
    } else {
        int named = record->present & BIT(PARAMETERS) ? PARAMETERS : NAME;
        if (!(record->present & BIT(named))) return NULL;
        record->slots[stretch] = recent_slot(record->members[named].at, 6, at + 13, 2);
    }
    if (scanner->recent_stretches[stretch] == NULL) return NULL;
    const KnownStretch *known = &scanner->recent_stretches[stretch][record->slots[stretch]];
    if (known->size == 0 || (size_t)(end - at) < known->size || record->present & known->present ||
        memcmp(at, known->text, known->size) != 0)
        return NULL;
    /* Where more follows, it is not that end. */
    if (stretch == CLOSE && at[known->size] != '}') return NULL;
    record->present |= known->present;
    record->said_in[stretch] = known->present;
    record->known |= BIT(stretch);
    memcpy(record->said[stretch], known->said, sizeof known->said);
    if (stretch == CALL) record->members[NAME] = (Slice){at + known->name_at, known->name_size};
    return at + known->size;
}

/* Numbers what a stretch says that was not seen before. */
static int say(Scanner *scanner, int stretch, Record *record) {
    for (int side = 0; side < SIDES; side++) {
        Buffer *text = &scanner->name;
        text->size = 0;
        if (mark(text, END) < 0) return -1;
        for (int member = 0; member < MEMBERS; member++)
            if (record->present & SAID[stretch][side] & BIT(member) && put_slice(text, record->members[member]) < 0)
                return -1;
        Names *names = &scanner->said[stretch][side];
        Slice name = {text->at, text->size};
        uint64_t hash = hash_of(name.at, name.size);
        Entry *entry = entry_of(names, name, hash);
        if (entry == NULL) return -1;
        if (entry->size == 0 && put_entry(names, entry, name, hash, (int64_t)names->used) < 0) return -1;
        record->said[stretch][side] = entry->code;
    }
    return 0;
}

/* Remembers a stretch of a regular record. */
static int learn(Scanner *scanner, int stretch, const Record *record) {
    Slice text = record->stretches[stretch];
    size_t slot = record->slots[stretch];
    uint32_t said = record->present & SAID_BY(stretch);
    if (text.size == 0 || text.size > STRETCH_BYTES || slot == RECENT || record->said_in[stretch] != said) return 0;
    KnownStretch **all = &scanner->recent_stretches[stretch];
    if (*all == NULL && (*all = PyMem_Calloc(RECENT, sizeof **all)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    KnownStretch *known = &(*all)[slot];
    known->size = text.size;
    known->present = said;
    memcpy(known->said, record->said[stretch], sizeof known->said);
    if (stretch == CALL) {
        known->name_at = (uint32_t)(record->members[NAME].at - text.at);
        known->name_size = (uint32_t)record->members[NAME].size;
    }
    memcpy(known->text, text.at, text.size);
    return 0;
}

/* Reads the members of the record at `*from`, which is moved behind it. */
static int read_record(Scanner *scanner, const char **from, const char *end, Record *record) {
    const char *at = *from, *start = at;
    int regular = 1, any = 0;
    if (*at++ != '{') return BROKEN;
    record->present = 0;
    record->who = -1;
    record->slot = RECENT;
    record->known = 0;
    for (int stretch = 0; stretch < STRETCHES; stretch++) {
        record->stretches[stretch].size = 0;
        record->said_in[stretch] = 0;
    }
    if (*at == '}') {
        *from = at + 1;
        return STRANGE;
    }
    /* The stretch that is being read, and what there was before it. */
    int open = STRETCHES;
    const char *opened = NULL;
    uint32_t before = 0;
    for (int member = -1;;) {
        const char *behind = NULL;
        int stretch = stretch_at(at, end, member);
        if (stretch != STRETCHES) {
            behind = known_stretch(scanner, stretch, at, end, record);
            open = behind == NULL ? stretch : STRETCHES;
            opened = at;
            before = record->present;
        }
        if (behind != NULL) {
            at = behind;
            member = stretch == CALL ? AGENT : TLS;
        } else {
            int flags = 0;
            member = member_of(scanner, &at, end, member, &flags);
            if (member == FAILED) return BROKEN;
            any |= flags;
            flags = 0;
            if (member == IDENTITY) behind = known_identity(scanner, at, end, &record->slot, &record->who);
            if (behind == NULL) {
                if (*at == '{' && (member == PARAMETERS || member == ADDITIONAL))
                    behind = object_end(at, end, &flags, member == ADDITIONAL ? &record->additional : &record->parameters);
                else
                    behind = value_end(at, end, DEPTH_LIMIT, &flags);
                if (behind == NULL) return BROKEN;
                any |= flags;
            }
            if (member < 0 || record->present & BIT(member)) {
                regular = 0;
            } else {
                Slice value = {at, (size_t)(behind - at)};
                if (KNOWN_MEMBERS[member].kind == TEXT) {
                    if (*at != '"') regular = 0;
                    else value = (Slice){at + 1, value.size - 2};
                } else if (KNOWN_MEMBERS[member].kind == FLAG && *at != 't' && *at != 'f') {
                    regular = 0;
                }
                record->present |= BIT(member);
                record->members[member] = value;
                record->flags[member] = flags;
            }
            at = behind;
            if (open != STRETCHES && (open == CALL ? member == AGENT : *at == '}')) {
                record->stretches[open] = (Slice){opened, (size_t)(at - opened)};
                record->said_in[open] = record->present & ~before;
                open = STRETCHES;
            }
        }
        if (*at == '}') break;
        if (*at++ != ',') return BROKEN;
    }
    *from = at + 1;
    if ((any & HAS_HIGH) && !is_utf8((const unsigned char *)start, (const unsigned char *)at)) return BROKEN;
    return regular && (record->present & REQUIRED) == REQUIRED ? REGULAR : STRANGE;
}

/* A message with its short escapes undone; 0 where it has others. */
static int unescape(Buffer *to, Slice text) {
    to->size = 0;
    char *out = reserve(to, text.size);
    if (out == NULL) return -1;
    for (size_t at = 0; at < text.size; at++) {
        char sign = text.at[at];
        if (sign == '\\') {
            switch (text.at[++at]) {
                case 'b': sign = '\b'; break;
                case 'f': sign = '\f'; break;
                case 'n': sign = '\n'; break;
                case 'r': sign = '\r'; break;
                case 't': sign = '\t'; break;
                case 'u': return 0;
                default: sign = text.at[at];
            }
        }
        *out++ = sign;
    }
    to->size = (size_t)(out - to->at);
    return 1;
}

/* -- the checksum of a record: CRC-32 as zlib has it ---------------------------------------------------------------- */

#ifdef __PCLMUL__
#include <wmmintrin.h>
#include <smmintrin.h>

static uint32_t CHECKS[256];

static void fill_checks(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t check = byte;
        for (int bit = 0; bit < 8; bit++) check = check >> 1 ^ (check & 1 ? 0xEDB88320 : 0);
        CHECKS[byte] = check;
    }
}

static __m128i folded(__m128i state, __m128i by, __m128i next) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(state, by, 0x00), _mm_clmulepi64_si128(state, by, 0x11)),
                         next);
}

static __m128i sixteen(const char *at) { return _mm_loadu_si128((const __m128i *)at); }

/* 64 bytes at a time by carry-less multiplication. Source: Gopal et al., Fast CRC Computation for Generic Polynomials
 * Using PCLMULQDQ Instruction (Intel, 2009); the constants are powers of x modulo the polynomial, bits reversed. */
static uint32_t crc_of(const char *at, size_t size) {
    uint32_t check = 0xFFFFFFFF;
    if (size >= 64) {
        const __m128i by_512 = _mm_set_epi64x(0x1C6E41596, 0x154442BD4), by_128 = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
        const __m128i low_words = _mm_setr_epi32(~0, 0, ~0, 0), polynomial = _mm_set_epi64x(0x1F7011641, 0x1DB710641);
        __m128i a = _mm_xor_si128(sixteen(at), _mm_cvtsi32_si128((int)check)), b = sixteen(at + 16);
        __m128i c = sixteen(at + 32), d = sixteen(at + 48);
        for (at += 64, size -= 64; size >= 64; at += 64, size -= 64) {
            a = folded(a, by_512, sixteen(at));
            b = folded(b, by_512, sixteen(at + 16));
            c = folded(c, by_512, sixteen(at + 32));
            d = folded(d, by_512, sixteen(at + 48));
        }
        a = folded(folded(folded(a, by_128, b), by_128, c), by_128, d);
        for (; size >= 16; at += 16, size -= 16) a = folded(a, by_128, sixteen(at));
        /* 128 bits to 64 to 32. */
        a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by_128, 0x10));
        a = _mm_xor_si128(_mm_srli_si128(a, 4),
                          _mm_clmulepi64_si128(_mm_and_si128(a, low_words), _mm_set_epi64x(0, 0x163CD6124), 0x00));
        b = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(a, low_words), polynomial, 0x10), low_words);
        a = _mm_xor_si128(a, _mm_clmulepi64_si128(b, polynomial, 0x00));
        check = (uint32_t)_mm_extract_epi32(a, 1);
    }
    for (; size; size--) check = check >> 8 ^ CHECKS[(check ^ (unsigned char)*at++) & 0xFF];
    return ~check;
}

static uint32_t check_of(Scanner *scanner, Slice text) {
    (void)scanner;
    return crc_of(text.at, text.size);
}
#else
static void fill_checks(void) {}

static uint32_t check_of(Scanner *scanner, Slice text) {
    PyObject *raw = PyMemoryView_FromMemory((char *)text.at, (Py_ssize_t)text.size, PyBUF_READ);
    if (raw == NULL) return 0;
    PyObject *answer = PyObject_CallOneArg(scanner->check, raw);
    Py_DECREF(raw);
    if (answer == NULL) return 0;
    uint32_t check = (uint32_t)PyLong_AsUnsignedLongMask(answer);
    Py_DECREF(answer);
    return check;
}
#endif

static Slice own(const Record *record, int member) {
    return record->present & BIT(member) ? record->members[member] : (Slice){NULL, 0};
}

/* Puts a regular record into the columns. 1: done, 0: it is not regular after all, -1: error. */
static int put_record(Scanner *scanner, Record *record, Slice text, int32_t object) {
    record->time = time_of(record->members[TIME]);
    if (record->time == 0 || !uuid_of(record->members[ID], record->id)) return 0;
    if ((record->present & BIT(REQUEST) && record->flags[REQUEST] & HAS_ESCAPE) ||
        (record->present & BIT(SHARED) && record->flags[SHARED] & HAS_ESCAPE))
        return 0;
    Slice message = own(record, ERROR_MESSAGE);
    if (message.at != NULL && record->flags[ERROR_MESSAGE] & HAS_ESCAPE) {
        int done = unescape(&scanner->unescaped, message);
        if (done != 1) return done;
        message = (Slice){scanner->unescaped.at, scanner->unescaped.size};
    }
    for (int at = 0, cut[] = {PARAMETERS, RESPONSE, ADDITIONAL, RESOURCES}; at < 4; at++)
        if (!(record->present & BIT(cut[at]))) record->members[cut[at]] = (Slice){"", 0};
    record->key = (Slice){NULL, 0};
    record->key_is_item = record->kept = record->has_in = record->has_out = record->floats = 0;
    record->bytes_in = record->bytes_out = 0;
    record->without = record->counted = 0;
    /* An empty text is no name; a record without userIdentity is named by a blank. */
    Slice user = record->present & BIT(IDENTITY) ? record->members[IDENTITY] : (Slice){" ", 1};
    int64_t who = record->who;
    if (who < 0) {
        Entry entry;
        who = code_of(scanner, WHO, user, record, text, &entry);
        if (who < 0) return who == FAILED ? -1 : 0;
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
    int64_t place = code_of(scanner, WHERE, (Slice){scanner->name.at, scanner->name.size}, record, text, NULL);
    if (place < 0) return place == FAILED ? -1 : 0;
    int regular = name_what(scanner, record, who & 1);
    if (regular != 1) return regular;
    int64_t what = code_of(scanner, WHAT, (Slice){scanner->name.at, scanner->name.size}, record, text, NULL);
    if (what == FAILED) return -1;
    if (what < 0 || (record->kept && record->key.at == NULL && what & FIXED_KEY)) return 0;

    uint32_t check = check_of(scanner, text);
    if (PyErr_Occurred()) return -1;
    int32_t codes[KINDS] = {(int32_t)(who >> 1), (int32_t)place, (int32_t)(what >> 3)};
    Slice request = own(record, REQUEST), shared = own(record, SHARED), response = record->members[RESPONSE];
    int has_response = response.size > 0 && response.at[0] != 'n';
    int is_full = !(what & IS_THIN);
    Slice kept = record->members[PARAMETERS], left = record->members[ADDITIONAL];
    if (is_full && record->kept == CUT_OUT) {
        if (put_members(&scanner->kept, &record->parameters, record->without) < 0) return -1;
        kept = (Slice){scanner->kept.at, scanner->kept.size};
    }
    if (is_full && record->counted) {
        if (put_members(&scanner->additional, &record->additional, record->counted) < 0) return -1;
        left = (Slice){scanner->additional.at, scanner->additional.size};
    }
    if (more_rows(scanner) < 0 || put_text(scanner, C_KEY, record->key, record->key.at != NULL && what & HAS_KEY) < 0 ||
        put_text(scanner, C_ID, is_full ? record->members[ID] : (Slice){"", 0}, 1) < 0 ||
        put_text(scanner, C_REQUEST, request, is_full && request.at != NULL) < 0 ||
        put_text(scanner, C_ERROR, message, is_full && message.at != NULL) < 0 ||
        put_text(scanner, C_SHARED, shared, is_full && shared.at != NULL) < 0 ||
        put_text(scanner, C_PARAMETERS, kept, is_full && record->kept) < 0 ||
        put_text(scanner, C_ADDITIONAL, left, is_full && left.size > 0) < 0 ||
        put_text(scanner, C_RESPONSE, response, is_full && has_response) < 0)
        return -1;
    scanner->thin += !is_full;
    put_number(scanner, N_WHO, &codes[WHO]);
    put_number(scanner, N_PLACE, &codes[WHERE]);
    put_number(scanner, N_WHAT, &codes[WHAT]);
    put_number(scanner, N_TIME, &record->time);
    put_number(scanner, N_OBJECT, &object);
    put_number(scanner, N_ID, record->id);
    put_number(scanner, N_CHECK, &check);
    put_number(scanner, N_IN, &record->bytes_in);
    put_number(scanner, N_OUT, &record->bytes_out);
    scanner->has_in[scanner->rows] = (char)record->has_in;
    scanner->has_out[scanner->rows] = (char)record->has_out;
    scanner->rows++;
    for (int stretch = 0; stretch < STRETCHES; stretch++)
        if (!(record->known & BIT(stretch)) && learn(scanner, stretch, record) < 0) return -1;
    return 1;
}

/* -- the type ------------------------------------------------------------------------------------------------------ */

/* Forgets all rows but the first ones, and what there is of one that was not finished. */
static void keep_rows(Scanner *scanner, size_t rows) {
    if (rows > scanner->rows) rows = scanner->rows;
    for (int at = 0; at < TEXTS; at++)
        scanner->texts[at].bytes.size = rows ? (size_t)scanner->texts[at].ends[rows - 1] : 0;
    scanner->rows = rows;
}

static const char HEAD[] = "{\"Records\":[";
#define TEXT_LIMIT (1 << 29)

PyDoc_STRVAR(scan_doc,
             "scan(text, log_object)\n--\n\n"
             "Takes the regular records of a text {\"Records\":[...]}: how many records there are, and of the others\n"
             "(position, start, end). None, and nothing taken, where the text is of another form.");

static PyObject *scan(Scanner *scanner, PyObject *arguments) {
    PyObject *data;
    int object;
    if (!PyArg_ParseTuple(arguments, "Oi:scan", &data, &object)) return NULL;
    /* Both end with a zero byte behind their last one. */
    const char *at;
    Py_ssize_t size;
    if (PyBytes_Check(data)) {
        at = PyBytes_AS_STRING(data);
        size = PyBytes_GET_SIZE(data);
    } else if (PyByteArray_Check(data)) {
        at = PyByteArray_AS_STRING(data);
        size = PyByteArray_GET_SIZE(data);
    } else {
        PyErr_SetString(PyExc_TypeError, "the text must be bytes or a bytearray");
        return NULL;
    }
    const char *end = at + size, *text = at;
    if (end - at > TEXT_LIMIT || (size_t)(end - at) < sizeof HEAD || memcmp(at, HEAD, sizeof HEAD - 1) != 0)
        Py_RETURN_NONE;
    at += sizeof HEAD - 1;
    size_t before = scanner->rows;
    Py_ssize_t count = 0;
    PyObject *others = PyList_New(0);
    if (others == NULL) return NULL;
    Record record;
    while (*at != ']' || count) {
        const char *start = at;
        int what = read_record(scanner, &at, end, &record);
        if (what == BROKEN) goto other_form;
        Slice whole = {start, (size_t)(at - start)};
        int done = what == REGULAR ? put_record(scanner, &record, whole, object) : 0;
        if (done < 0) goto failed;
        if (done == 0) {
            PyObject *place = Py_BuildValue("nnn", count, (Py_ssize_t)(start - text), (Py_ssize_t)(at - text));
            if (place == NULL || PyList_Append(others, place) < 0) {
                Py_XDECREF(place);
                goto failed;
            }
            Py_DECREF(place);
        }
        count++;
        if (*at == ']') break;
        if (*at++ != ',') goto other_form;
    }
    if (*++at != '}') goto other_form;
    at++;
    while (at < end && (*at == '\n' || *at == '\r' || *at == ' ' || *at == '\t')) at++;
    if (at != end) goto other_form;
    return Py_BuildValue("nN", count, others);

other_form:
    keep_rows(scanner, before);
    Py_DECREF(others);
    Py_RETURN_NONE;
failed:
    keep_rows(scanner, before);
    Py_DECREF(others);
    return NULL;
}

static int set_item(PyObject *into, const char *name, PyObject *value) {
    if (value == NULL) return -1;
    int done = PyDict_SetItemString(into, name, value);
    Py_DECREF(value);
    return done;
}

/* One bit a row, the least significant first; None where all rows have a value. */
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

PyDoc_STRVAR(take_doc,
             "take()\n--\n\n"
             "The rows so far, which are forgotten: numbers by name, and for texts (bits, offsets, bytes) as Arrow has\n"
             "them; `has_in` and `has_out` are bits.");

static PyObject *take(Scanner *scanner, PyObject *Py_UNUSED(ignored)) {
    PyObject *columns = PyDict_New();
    if (columns == NULL) return NULL;
    size_t rows = scanner->rows;
    for (int at = 0; at < NUMBERS; at++) {
        PyObject *numbers = PyBytes_FromStringAndSize(scanner->numbers[at], (Py_ssize_t)(rows * WIDTHS[at]));
        if (set_item(columns, NUMBER_NAMES[at], numbers) < 0) goto failed;
    }
    if (set_item(columns, "has_in", bits_of(scanner->has_in, rows)) < 0) goto failed;
    if (set_item(columns, "has_out", bits_of(scanner->has_out, rows)) < 0) goto failed;
    for (int at = 0; at < TEXTS; at++) {
        TextColumn *column = &scanner->texts[at];
        PyObject *parts = Py_BuildValue("NNy#", bits_of(column->valid, rows), offsets_of(column->ends, rows),
                                        column->bytes.at ? column->bytes.at : "", (Py_ssize_t)column->bytes.size);
        if (set_item(columns, TEXT_NAMES[at], parts) < 0) goto failed;
    }
    keep_rows(scanner, 0);
    return columns;
failed:
    Py_DECREF(columns);
    return NULL;
}

PyDoc_STRVAR(keep_doc, "keep(rows)\n--\n\nForgets all rows but the first ones.");

static PyObject *keep(Scanner *scanner, PyObject *argument) {
    Py_ssize_t rows = PyLong_AsSsize_t(argument);
    if (PyErr_Occurred()) return NULL;
    keep_rows(scanner, rows < 0 ? 0 : (size_t)rows);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc, "forget_names()\n--\n\nForgets what names stand for.");

static PyObject *forget_names(Scanner *scanner, PyObject *Py_UNUSED(ignored)) {
    for (int kind = 0; kind < KINDS; kind++) {
        PyMem_Free(scanner->names[kind].entries);
        release(&scanner->names[kind].texts);
        memset(&scanner->names[kind], 0, sizeof scanner->names[kind]);
    }
    memset(scanner->recent, 0, sizeof scanner->recent);
    for (int stretch = 0; stretch < STRETCHES; stretch++) {
        PyMem_Free(scanner->recent_stretches[stretch]);
        scanner->recent_stretches[stretch] = NULL;
        for (int side = 0; side < SIDES; side++) {
            PyMem_Free(scanner->said[stretch][side].entries);
            release(&scanner->said[stretch][side].texts);
        }
    }
    memset(scanner->said, 0, sizeof scanner->said);
    Py_RETURN_NONE;
}

static PyObject *get_rows(Scanner *scanner, void *Py_UNUSED(closure)) { return PyLong_FromSize_t(scanner->rows); }

static PyObject *get_thin(Scanner *scanner, void *Py_UNUSED(closure)) { return PyLong_FromSize_t(scanner->thin); }

static PyObject *get_size(Scanner *scanner, void *Py_UNUSED(closure)) {
    size_t size = 0;
    for (int at = 0; at < TEXTS; at++) size += scanner->texts[at].bytes.size;
    return PyLong_FromSize_t(size);
}

static int init(Scanner *scanner, PyObject *arguments, PyObject *names) {
    PyObject *shared, *check;
    static char *parameters[] = {"shared", "check", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "OO:Scanner", parameters, &shared, &check)) return -1;
    Py_INCREF(shared);
    Py_INCREF(check);
    Py_XSETREF(scanner->shared, shared);
    Py_XSETREF(scanner->check, check);
    for (int at = 0; at < MEMBERS; at++) scanner->guess[at] = (at + 1) % MEMBERS;
    return 0;
}

static int traverse(Scanner *scanner, visitproc visit, void *arg) {
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
    PyObject_GC_UnTrack(scanner);
    clear(scanner);
    for (int at = 0; at < NUMBERS; at++) PyMem_Free(scanner->numbers[at]);
    for (int at = 0; at < TEXTS; at++) {
        release(&scanner->texts[at].bytes);
        PyMem_Free(scanner->texts[at].ends);
        PyMem_Free(scanner->texts[at].valid);
    }
    PyMem_Free(scanner->has_in);
    PyMem_Free(scanner->has_out);
    Buffer *others[] = {&scanner->name, &scanner->kept, &scanner->additional, &scanner->unescaped};
    for (size_t at = 0; at < sizeof others / sizeof *others; at++) release(others[at]);
    forget_names(scanner, NULL);
    Py_TYPE(scanner)->tp_free((PyObject *)scanner);
}

PyDoc_STRVAR(only_doc, "only_at_end(data, size)\n--\n\nWhether the last bytes of data, `size` of them, stand nowhere else.");

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
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(scanner_doc,
             "Scanner(shared, check)\n--\n\n"
             "Rows of regular records. `shared` (regular.Shared) says what a new name stands for: scan_who(user, named),\n"
             "scan_place(record) and scan_what(record, key, key_is_item, kept) give a number (see there), -1 (all\n"
             "records of this name are irregular) or -2 (this one is). check(record) -> int is a checksum of its text.");

static PyTypeObject SCANNER = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "trailsift._native._scan.Scanner",
    .tp_basicsize = sizeof(Scanner),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = scanner_doc,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)init,
    .tp_dealloc = (destructor)dealloc,
    .tp_traverse = (traverseproc)traverse,
    .tp_clear = (inquiry)clear,
    .tp_methods = METHODS,
    .tp_getset = VALUES,
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "trailsift._native._scan", .m_doc = "See scan.c.", .m_size = -1, .m_methods = FUNCTIONS,
};

PyMODINIT_FUNC PyInit__scan(void) {
    fill_kinds();
    fill_nibbles();
    fill_checks();
    fill_begins();
    PyObject *module = PyModule_Create(&MODULE);
    if (module == NULL) return NULL;
    if (PyModule_AddType(module, &SCANNER) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
