/* The names of a record: what it has in common with other records, as bytes.
 *
 * A name is a record's bytes without what varies from call to call: time, ids, object key, byte counts, and request
 * parameters that say nothing about the resource. Two records may have the same name only if everything derived from
 * them is the same, whoever chose the texts in them. So each stretch of text in a name begins with a mark and its size,
 * and each cut leaves a mark of its own.
 */
#include "scanner.h"

/* What a name consists of. */
enum { STRETCH, KEY_TEXT, KEY_ITEM, VARYING, BATCH_ITEM, KEY_IN_ARN, PREFIX, END };

static int put_slice(Buffer *name, Slice slice) {
    uint32_t size = (uint32_t)slice.size;
    char *to = reserve(name, 1 + sizeof size + size);
    if (to == NULL) return -1;
    *to = STRETCH;
    memcpy(to + 1, &size, sizeof size);
    if (size) memcpy(to + 1 + sizeof size, slice.at, size);
    name->size += 1 + sizeof size + size;
    return 0;
}

static inline int put_stretch(Buffer *name, const char *from, const char *to) {
    return put_slice(name, (Slice){from, (size_t)(to - from)});
}

/* -- request parameters -------------------------------------------------------------------------------------------- */

enum { NO_VARYING, PART, LIST, ITEMS, ITERATOR, COPY, SESSION, SEGMENT, STATEMENT };

/* Return which request parameters vary from call to call and say nothing about the resource, by action;
 * decode/fast_path.py has the same table. */
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

/* Return how much of the source of a copy belongs to the name: the bucket and the slash behind it. -1: none. */
static Py_ssize_t bucket_size(Slice quoted) {
    const char *start = quoted.at, *end = start + quoted.size, *at = start + 1;
    while (at < end && ((*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') || *at == '.' || *at == '-')) at++;
    return peek(at, end) == '/' && at > start + 1 ? at + 1 - start : -1;
}

/* Return how much of a varying member's value belongs to the name all the same; -1 if the member does not vary. */
static Py_ssize_t fixed_size(int varying, const Member *member) {
    Slice name = member->name;
    const char *start = member->value.at, *end = start + member->value.size;
    if (varying == SEGMENT) return IS(name, "segment") && digits_end(start, end) == end ? 0 : -1;
    if (varying == NO_VARYING || *start != '"' || (member->flags & HAS_ESCAPE)) return -1;
    if (varying == COPY && IS(name, "x-amz-copy-source")) return bucket_size(member->value);
    if (varying == PART || varying == COPY)
        return IS(name, "uploadId") || IS(name, "partNumber") || IS(name, "versionId") ? 0 : -1;
    if (varying == LIST)
        return IS(name, "prefix") || IS(name, "marker") || IS(name, "start-after") || IS(name, "continuation-token") ||
                       IS(name, "max-keys")
                   ? 0
                   : -1;
    if (varying == SESSION) return IS(name, "roleSessionName") ? 0 : -1;
    /* The stream's ARN comes before the last bar. */
    if (varying != ITERATOR || !IS(name, "shardIterator")) return -1;
    const char *last = end - 1, *at = last;
    while (at > start && is_base64(at[-1])) at--;
    return at > start && at < last && at[-1] == '|' ? at - start : -1;
}

/* Keys of tables have at most two attributes. */
#define ITEM_NAMES 8

/* Return the first byte behind an item key, an object of one or more strings without escapes, each name once; NULL for
 * all else. */
static const char *item_end(const char *at, const char *end) {
    Member member;
    Slice names[ITEM_NAMES];
    int count = 0;
    const char *behind = NULL;
    if (peek(at, end) != '{') return NULL;
    while ((at = next_member(at, end, &member)) != NULL) {
        behind = at;
        /* Of a name that occurs twice, the last value counts. */
        for (int other = 0; other < count; other++)
            if (is(member.name, names[other].at, names[other].size)) return NULL;
        if (count == ITEM_NAMES) return NULL;
        names[count++] = member.name;
        if (*member.value.at != '"' || (member.flags & HAS_ESCAPE) ||
            memchr(member.name.at, '\\', member.name.size) != NULL)
            return NULL;
    }
    return behind != NULL && peek(behind, end) == '}' ? behind + 1 : NULL;
}

/* Return the closing bracket of a list whose items begin at `at`, if all are item keys; else NULL. */
static const char *items_end(const char *at, const char *end) {
    while ((at = item_end(at, end)) != NULL && peek(at, end) == ',') at++;
    return at != NULL && peek(at, end) == ']' ? at : NULL;
}

/* Request parameters of batches: without the items. */
static int name_items(Scanner *scanner, Record *record) {
    Slice text = record->members[PARAMETERS];
    Buffer *name = &scanner->name;
    const char *at = text.at, *end = at + text.size, *from = at, *place;
    while ((place = find(from, end, "\"key", 4)) != NULL) {
        const char *items = NULL, *behind = NULL;
        if (STARTS(place, end, "\"key\":{"))
            behind = item_end(items = place + 6, end);
        else if (STARTS(place, end, "\"keys\":[{"))
            behind = items_end(items = place + 8, end);
        from = place + 4;
        if (behind == NULL) continue;
        record->kept = WHOLE;
        if (put_stretch(name, at, items) < 0 || append_byte(name, BATCH_ITEM) < 0) return -1;
        from = at = behind;
    }
    return put_stretch(name, at, end);
}

/* decode/fast_path.py has the same limit. */
#define STATEMENT_BYTES 8192

/* A PartiQL statement without its texts. Return 1; 0, with nothing written, if it has none or it is not certain which
 * they are (decode/fast_path.py decides likewise); -1 with an exception set. */
static int name_statement(Buffer *name, Slice text) {
    const char *at = text.at, *end = at + text.size, *from = at;
    if (*at != '"' || text.size > STATEMENT_BYTES + 2 || find(at, end, "\\u", 2) != NULL) return 0;
    size_t before = name->size;
    while ((at = memchr(at, '\'', (size_t)(end - at))) != NULL) {
        const char *quote = memchr(at + 1, '\'', (size_t)(end - at - 1));
        if (quote == NULL || memchr(at, '\\', (size_t)(quote - at)) != NULL) {
            name->size = before;
            return 0;
        }
        if (put_stretch(name, from, at) < 0 || append_byte(name, VARYING) < 0) return -1;
        from = at = quote + 1;
    }
    if (from == text.at) return 0;
    return put_stretch(name, from, end) < 0 ? -1 : 1;
}

/* What stands in a name for a parameter: all of it (a mark of 0), or `fixed` bytes of its value and a mark. */
typedef struct {
    char mark;
    size_t fixed;
} Replacement;

/* If a parameter is the record's key, note it. Return whether the record is regular. */
static int take_key(Record *record, const Member *member, int varying, uint64_t bit, Replacement *replacement) {
    Slice value = member->value;
    int is_text = *value.at == '"' && value.size > 2;
    int is_key = IS(member->name, "key"), is_prefix = varying == LIST && IS(member->name, "prefix");
    if (is_key && (varying == LIST || record->key.at != NULL)) return 0;
    /* A text that begins like an object is not one. */
    if ((is_key || is_prefix) && is_text && (member->flags & HAS_ESCAPE || value.at[1] == '{')) return 0;
    if (is_key && is_text) {
        record->key = (Slice){value.at + 1, value.size - 2};
        replacement->mark = KEY_TEXT;
        record->without |= bit;
    } else if (is_key && *value.at == '{' && item_end(value.at, value.at + value.size) != NULL) {
        record->key = value;
        record->key_is_item = 1;
        replacement->mark = KEY_ITEM;
        record->without |= bit;
    } else if (is_prefix && is_text) {
        /* The prefix of a listing is its key, and stays a parameter too. */
        if (record->key.at != NULL) return 0;
        record->key = (Slice){value.at + 1, value.size - 2};
        record->kept = CUT_OUT;
        replacement->mark = PREFIX;
    }
    return 1;
}

/* Request parameters, with marks for the key and for what varies. Return 1, 0 if the record is not regular, -1 with an
 * exception set. */
static int name_parameters(Scanner *scanner, Record *record) {
    Slice text = record->members[PARAMETERS];
    Buffer *name = &scanner->name;
    if (text.size == 0 || *text.at != '{') return put_slice(name, text) < 0 ? -1 : 1;
    int varying = varying_of(record->members[NAME]);
    if (varying == ITEMS) return name_items(scanner, record) < 0 ? -1 : 1;
    if (record->parameters.count < 0) return 0;
    const char *from = text.at;
    for (int part = 0; part < record->parameters.count; part++) {
        const Member *member = &record->parameters.at[part];
        Slice value = member->value;
        Replacement replacement = {0, 0};
        if (!take_key(record, member, varying, 1ULL << part, &replacement)) return 0;
        if (!replacement.mark && varying == STATEMENT && IS(member->name, "statement")) {
            size_t before = name->size;
            if (put_stretch(name, from, value.at) < 0) return -1;
            int done = name_statement(name, value);
            if (done < 0) return -1;
            if (done) {
                record->kept = CUT_OUT;
                from = value.at + value.size;
                continue;
            }
            name->size = before;
        }
        if (!replacement.mark) {
            Py_ssize_t fixed = fixed_size(varying, member);
            if (fixed < 0) continue;
            record->kept = CUT_OUT;
            replacement = (Replacement){VARYING, (size_t)fixed};
        }
        if (put_stretch(name, from, value.at + replacement.fixed) < 0 || append_byte(name, replacement.mark) < 0)
            return -1;
        from = value.at + value.size;
    }
    return put_stretch(name, from, text.at + text.size) < 0 ? -1 : 1;
}

/* -- the other parts ----------------------------------------------------------------------------------------------- */

/* Resources, with the key cut out. */
static int name_resources(Scanner *scanner, const Record *record) {
    Slice text = record->members[RESOURCES], key = record->key;
    Buffer *name = &scanner->name;
    const char *at = text.at, *end = at + text.size, *place;
    if (key.at != NULL && !record->key_is_item && text.size) {
        const char *from = at;
        while ((place = find(from, end, key.at, key.size)) != NULL) {
            from = place + 1;
            if (place == text.at || place[-1] != '/' || peek(place + key.size, end) != '"') continue;
            if (put_stretch(name, at, place) < 0 || append_byte(name, KEY_IN_ARN) < 0) return -1;
            from = at = place + key.size;
        }
    }
    return put_stretch(name, at, end);
}

/* Read the byte counts of additionalEventData. Return whether the record is regular. */
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
        /* The word must not occur anywhere else. */
        if (at != member->name.at) return 0;
        at = find(at + sizeof COUNT - 1, end, COUNT, sizeof COUNT - 1);
        if (at == NULL) return 1;
    }
    return 0;
}

int put_members(Buffer *to, const Parts *parts, uint64_t without) {
    to->size = 0;
    if (append_byte(to, '{') < 0) return -1;
    for (int part = 0; part < parts->count; part++) {
        if (without >> part & 1) continue;
        const Member *member = &parts->at[part];
        const char *start = member->name.at - 1;
        if ((to->size > 1 && append_byte(to, ',') < 0) ||
            append(to, start, (size_t)(member->value.at + member->value.size - start)) < 0)
            return -1;
    }
    return append_byte(to, '}');
}

int say(Scanner *scanner, int stretch, Record *record) {
    for (int side = 0; side < SIDES; side++) {
        Buffer *text = &scanner->name;
        text->size = 0;
        if (append_byte(text, END) < 0) return -1;
        uint32_t members = record->present & SAID[stretch][side];
        for (int member = 0; member < MEMBERS; member++)
            if (members & BIT(member) && put_slice(text, record->members[member]) < 0) return -1;
        Names *names = &scanner->said[stretch][side];
        Slice name = {text->at, text->size};
        uint64_t hash = hash_bytes(&scanner->secret, name.at, name.size);
        Entry *entry = entry_of(names, name, hash);
        if (entry == NULL) return -1;
        if (entry->size == 0 && put_entry(names, entry, name, hash, (int64_t)names->used) < 0) return -1;
        record->said[stretch][side] = entry->code;
    }
    return 0;
}

int name_what(Scanner *scanner, Record *record, int anonymous) {
    Buffer *name = &scanner->name;
    name->size = 0;
    if (!cut_counts(record)) return 0;
    uint32_t present = record->present & ~(OWN | PLACE);
    if (append(name, &present, sizeof present) < 0 || append_byte(name, (char)record->floats) < 0 ||
        append_byte(name, (char)anonymous) < 0)
        return -1;
    for (int stretch = 0; stretch < STRETCHES; stretch++)
        if (append(name, &record->said[stretch][OF_WHAT], sizeof(int64_t)) < 0) return -1;
    uint32_t members = present & ~(CUT | STRETCHED | BIT(IDENTITY));
    /* Whose account it is matters if the record does not say. */
    if (!(present & BIT(RECIPIENT))) members |= present & BIT(IDENTITY);
    for (int member = 0; member < MEMBERS; member++)
        if (members & BIT(member) && put_slice(name, record->members[member]) < 0) return -1;
    int regular = name_parameters(scanner, record);
    if (regular != 1) return regular;
    /* An ARN may spell the key in another way. */
    if (record->key.at != NULL && present & BIT(RESOURCES) && record->flags[RESOURCES] & HAS_ESCAPE) return 0;
    return append_byte(name, END) < 0 || name_resources(scanner, record) < 0 ? -1 : 1;
}

int name_place(Scanner *scanner, const Record *record) {
    Buffer *name = &scanner->name;
    name->size = 0;
    uint32_t present = record->present & PLACE;
    if (append(name, &present, sizeof present) < 0) return -1;
    for (int stretch = 0; stretch < STRETCHES; stretch++)
        if (append(name, &record->said[stretch][OF_PLACE], sizeof(int64_t)) < 0) return -1;
    return 0;
}
