/* One record: its members, checked as they are read.
 *
 * Records repeat each other: the members come in one order, callers make many calls, and what is called from where and
 * how a record ends are the same text in many records. So the next member, the identity and two stretches are guessed
 * first, and confirmed by comparing all of their bytes. Only what was not guessed is read byte by byte.
 */
#include "scanner.h"
#include "simd.h"

#if SIMD_X86
#include <immintrin.h>
#endif

enum { TEXT, RAW, FLAG };
#define KNOWN(name, kind) {name, sizeof name - 1, kind}
static const struct {
    const char *name;
    unsigned char size, kind;
} KNOWN_MEMBERS[MEMBERS] = {
    KNOWN("eventVersion", TEXT),       KNOWN("userIdentity", RAW),      KNOWN("eventTime", TEXT),
    KNOWN("eventSource", TEXT),        KNOWN("eventName", TEXT),        KNOWN("awsRegion", TEXT),
    KNOWN("sourceIPAddress", TEXT),    KNOWN("userAgent", TEXT),        KNOWN("errorCode", TEXT),
    KNOWN("errorMessage", TEXT),       KNOWN("requestParameters", RAW), KNOWN("responseElements", RAW),
    KNOWN("additionalEventData", RAW), KNOWN("requestID", TEXT),        KNOWN("eventID", TEXT),
    KNOWN("readOnly", FLAG),           KNOWN("resources", RAW),         KNOWN("eventType", TEXT),
    KNOWN("apiVersion", TEXT),         KNOWN("managementEvent", FLAG),  KNOWN("recipientAccountId", TEXT),
    KNOWN("sharedEventID", TEXT),      KNOWN("vpcEndpointId", TEXT),    KNOWN("vpcEndpointAccountId", TEXT),
    KNOWN("eventCategory", TEXT),      KNOWN("tlsDetails", RAW),        KNOWN("sessionCredentialFromConsole", TEXT),
};

/* How each member begins, up to the colon, for one comparison of 32 bytes. */
static struct {
    char text[32];
    uint32_t mask;
    size_t size;
} BEGINS[MEMBERS];

void prepare_records(void) {
    for (int member = 0; member < MEMBERS; member++) {
        size_t size = KNOWN_MEMBERS[member].size;
        BEGINS[member].text[0] = '"';
        memcpy(BEGINS[member].text + 1, KNOWN_MEMBERS[member].name, size);
        memcpy(BEGINS[member].text + 1 + size, "\":", 2);
        BEGINS[member].size = size + 3;
        BEGINS[member].mask = (uint32_t)((1ULL << (size + 3)) - 1);
    }
}

/* Return whether a member begins at `at`. */
static inline int begins(const char *at, const char *end, int member) {
#if SIMD_X86
    if (end - at >= 32) {
        const char *text = BEGINS[member].text;
        __m128i low = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)at), _mm_loadu_si128((const __m128i *)text));
        __m128i high =
            _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(at + 16)), _mm_loadu_si128((const __m128i *)(text + 16)));
        uint32_t equal = (uint32_t)_mm_movemask_epi8(low) | (uint32_t)_mm_movemask_epi8(high) << 16;
        return !(~equal & BEGINS[member].mask);
    }
#endif
    size_t size = BEGINS[member].size;
    return (size_t)(end - at) > size && memcmp(at, BEGINS[member].text, size) == 0;
}

enum { UNKNOWN = -1, NO_MEMBER = -2 };

/* Return the member whose name begins at `*from`, which is moved to its value; UNKNOWN, or NO_MEMBER if there is no
 * valid name. */
static int member_of(Scanner *scanner, const char **from, const char *end, int previous, int *flags) {
    const char *at = *from;
    int *guess = &scanner->guess[previous < 0 ? MEMBERS : previous];
    /* Records of one trail have their members in one order, though some have more of them. */
    if (begins(at, end, *guess)) {
        *from = at + BEGINS[*guess].size;
        return *guess;
    }
    const char *quote = peek(at, end) == '"' ? string_end(at + 1, end, flags) : NULL;
    if (quote == NULL || peek(quote + 1, end) != ':') return NO_MEMBER;
    *from = quote + 2;
    Slice name = {at + 1, (size_t)(quote - at - 1)};
    for (int member = 0; member < MEMBERS; member++)
        if (is(name, KNOWN_MEMBERS[member].name, KNOWN_MEMBERS[member].size)) return *guess = member;
    return UNKNOWN;
}

/* Return the first byte behind a userIdentity that was seen before, NULL if it was not. It is looked up by some of its
 * bytes and confirmed by all. */
static const char *known_identity(Scanner *scanner, const char *at, const char *end, size_t *slot, int64_t *who) {
    *slot = RECENT;
    if (end - at < 128) return NULL;
    /* Role, session and the hour in which it began come after the first 22 bytes. */
    *slot = recent_slot(at + 22, 12, at, 0);
    const Entry *known = &scanner->recent[*slot];
    if (known->size == 0 || (size_t)(end - at) < known->size) return NULL;
    if (memcmp(at, scanner->names[WHO].texts.at + known->start, known->size) != 0) return NULL;
    *who = known->code;
    return at + known->size;
}

/* Return the stretch that begins at `at`, behind a member; STRETCHES for none. */
static int stretch_at(const char *at, const char *end, int previous) {
    if (previous == TIME) return begins(at, end, SOURCE) ? CALL : STRETCHES;
    return previous >= ID && begins(at, end, TYPE) ? CLOSE : STRETCHES;
}

/* Fill in what a stretch says that was seen before. Return the first byte behind it, NULL if it was not seen. */
static const char *known_stretch(Scanner *scanner, int stretch, const char *at, const char *end, Record *record) {
    record->slots[stretch] = RECENT;
    /* All words for the slot are read before these 160 bytes end. */
    if (end - at < 160) return NULL;
    /* A call is looked up by service, action and where it came from; an end by what names the resource, because the
     * host name in it contains that name. */
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
    /* If more members follow, the record has another end. */
    if (stretch == CLOSE && peek(at + known->size, end) != '}') return NULL;
    record->present |= known->present;
    record->said_in[stretch] = known->present;
    record->known |= BIT(stretch);
    memcpy(record->said[stretch], known->said, sizeof known->said);
    if (stretch == CALL) record->members[NAME] = (Slice){at + known->name_at, known->name_size};
    return at + known->size;
}

int learn(Scanner *scanner, int stretch, const Record *record) {
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

/* A record while it is read. */
typedef struct {
    const char *at, *end;
    Record *record;
    int member;  /* the last one, -1 for none */
    int regular; /* no member was unknown, repeated or of another type */
    int flags;   /* of all values and names */
    /* The stretch that is being read, where it began, and the members that came before it. */
    int open;
    const char *opened;
    uint32_t before;
} Reader;

/* Take the value from reader->at to `behind` for a member. */
static void put_member(Reader *reader, const char *behind, int flags) {
    Record *record = reader->record;
    int member = reader->member;
    if (member < 0 || record->present & BIT(member)) {
        reader->regular = 0;
        return;
    }
    Slice value = {reader->at, (size_t)(behind - reader->at)};
    char sign = *reader->at;
    if (KNOWN_MEMBERS[member].kind == TEXT) {
        if (sign != '"')
            reader->regular = 0;
        else
            value = (Slice){value.at + 1, value.size - 2};
    } else if (KNOWN_MEMBERS[member].kind == FLAG && sign != 't' && sign != 'f') {
        reader->regular = 0;
    }
    record->present |= BIT(member);
    record->members[member] = value;
    record->flags[member] = flags;
}

/* Read one member and what it closes. Return whether it is valid. */
static int read_member(Scanner *scanner, Reader *reader) {
    Record *record = reader->record;
    const char *end = reader->end, *behind = NULL;
    int flags = 0;
    reader->member = member_of(scanner, &reader->at, end, reader->member, &reader->flags);
    if (reader->member == NO_MEMBER) return 0;
    const char *at = reader->at;
    if (reader->member == IDENTITY) behind = known_identity(scanner, at, end, &record->slot, &record->who);
    if (behind == NULL) {
        if (peek(at, end) == '{' && (reader->member == PARAMETERS || reader->member == ADDITIONAL))
            behind =
                object_end(at, end, &flags, reader->member == ADDITIONAL ? &record->additional : &record->parameters);
        else
            behind = value_end(at, end, DEPTH_LIMIT, &flags);
        if (behind == NULL) return 0;
        reader->flags |= flags;
    }
    put_member(reader, behind, flags);
    reader->at = behind;
    int closes = reader->open == CALL ? reader->member == AGENT : peek(behind, end) == '}';
    if (reader->open != STRETCHES && closes) {
        record->stretches[reader->open] = (Slice){reader->opened, (size_t)(behind - reader->opened)};
        record->said_in[reader->open] = record->present & ~reader->before;
        reader->open = STRETCHES;
    }
    return 1;
}

int read_record(Scanner *scanner, const char **from, const char *end, Record *record) {
    const char *start = *from;
    Reader reader = {.at = start + 1, .end = end, .record = record, .member = -1, .regular = 1, .open = STRETCHES};
    if (peek(start, end) != '{') return BROKEN;
    record->present = 0;
    record->who = -1;
    record->slot = RECENT;
    record->known = 0;
    for (int stretch = 0; stretch < STRETCHES; stretch++) {
        record->stretches[stretch].size = 0;
        record->said_in[stretch] = 0;
    }
    if (peek(reader.at, end) == '}') {
        *from = reader.at + 1;
        return STRANGE;
    }
    for (;;) {
        const char *behind = NULL;
        int stretch = stretch_at(reader.at, end, reader.member);
        if (stretch != STRETCHES) {
            behind = known_stretch(scanner, stretch, reader.at, end, record);
            reader.open = behind == NULL ? stretch : STRETCHES;
            reader.opened = reader.at;
            reader.before = record->present;
        }
        if (behind != NULL) {
            reader.at = behind;
            reader.member = stretch == CALL ? AGENT : TLS;
        } else if (!read_member(scanner, &reader)) {
            return BROKEN;
        }
        char sign = peek(reader.at, end);
        if (sign == '}') break;
        if (sign != ',') return BROKEN;
        reader.at++;
    }
    *from = reader.at + 1;
    if (reader.flags & HAS_HIGH && !is_utf8(start, reader.at)) return BROKEN;
    return reader.regular && (record->present & REQUIRED) == REQUIRED ? REGULAR : STRANGE;
}
