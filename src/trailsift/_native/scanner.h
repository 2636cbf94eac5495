/* What the files of the scanner share: the members of a record, one record being read, and the scanner itself. */
#ifndef TRAILSIFT_SCANNER_H
#define TRAILSIFT_SCANNER_H

#include "hash.h"
#include "json.h"
#include "names.h"
#include "text.h"

/* -- members of a record ------------------------------------------------------------------------------------------- */

/* In the order in which CloudTrail writes them; decode/fast_path.py has the same list. */
enum {
    VERSION,
    IDENTITY,
    TIME,
    SOURCE,
    NAME,
    REGION,
    ADDRESS,
    AGENT,
    ERROR_CODE,
    ERROR_MESSAGE,
    PARAMETERS,
    RESPONSE,
    ADDITIONAL,
    REQUEST,
    ID,
    READ_ONLY,
    RESOURCES,
    TYPE,
    API_VERSION,
    MANAGEMENT,
    RECIPIENT,
    SHARED,
    ENDPOINT,
    ENDPOINT_ACCOUNT,
    CATEGORY,
    TLS,
    FROM_CONSOLE,
    MEMBERS
};

#define BIT(member) (1u << (member))
#define REQUIRED (BIT(VERSION) | BIT(TIME) | BIT(SOURCE) | BIT(NAME) | BIT(ID))
/* Not part of a name as they are: they vary, or a part of them does. */
#define OWN (BIT(TIME) | BIT(ID) | BIT(REQUEST) | BIT(ERROR_MESSAGE) | BIT(SHARED))
/* What an origin consists of; decode/fast_path.py has the same. */
#define PLACE (BIT(ADDRESS) | BIT(AGENT) | BIT(ENDPOINT) | BIT(TLS))
#define CUT (BIT(PARAMETERS) | BIT(RESPONSE) | BIT(ADDITIONAL) | BIT(RESOURCES))

/* Two stretches of a record are the same text in many records: what is called from where (CALL), and how a record ends
 * (CLOSE). A name does not contain their text, but one number for what they say about the call and one for what they
 * say about the origin. */
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

/* -- one record ---------------------------------------------------------------------------------------------------- */

/* Request parameters that a row stores: all of them, or without what was cut out. */
enum { WHOLE = 1, CUT_OUT };

typedef struct {
    uint32_t present; /* bits of members */
    /* Values; texts without their quotes. */
    Slice members[MEMBERS];
    int flags[MEMBERS];
    int64_t time;
    /* Code of a userIdentity that was recognized, else -1, and its slot among the recent ones. */
    int64_t who;
    size_t slot;
    /* For each stretch: its slot among the recent ones, its text if it can be learnt, which members it has, and the
     * numbers of what these say. `known` has a bit for each stretch that was recognized. */
    size_t slots[STRETCHES];
    Slice stretches[STRETCHES];
    uint32_t said_in[STRETCHES], known;
    int64_t said[STRETCHES][SIDES];
    unsigned char id[16];
    Slice key;
    int key_is_item, kept, has_in, has_out;
    int floats; /* which counts were written as floats: 1 in, 2 out */
    int64_t bytes_in, bytes_out;
    Parts parameters, additional;
    /* Bits of the parts that have columns of their own: among the parameters the key, in additional data the counts. */
    uint64_t without, counted;
} Record;

/* -- columns ------------------------------------------------------------------------------------------------------- */

enum { C_ID, C_REQUEST, C_ERROR, C_SHARED, C_KEY, C_PARAMETERS, C_ADDITIONAL, C_RESPONSE, TEXTS };
enum { N_WHO, N_PLACE, N_WHAT, N_TIME, N_OBJECT, N_ID, N_CHECK, N_IN, N_OUT, NUMBERS };

typedef struct {
    Buffer bytes;
    int32_t *ends; /* one per row */
    char *valid;   /* one per row */
} TextColumn;

typedef struct {
    TextColumn texts[TEXTS];
    char *numbers[NUMBERS];
    char *has_in, *has_out;
    /* The arrays with one item per row have room for `room` of them. */
    size_t rows, room;
} Columns;

/* -- the scanner --------------------------------------------------------------------------------------------------- */

enum { WHO, WHERE, WHAT, KINDS };

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
    PyObject_HEAD PyObject *shared, *check;
    /* Set while a log object is read: what callbacks must not change then. */
    int busy;
    Secret secret;
    Columns columns;
    /* Rows ever taken without their texts. */
    size_t thin;
    Buffer name, kept, additional, unescaped;
    Names names[KINDS];
    /* The member that followed each member the last time; in the last place, the one that a record began with. */
    int guess[MEMBERS + 1];
    /* Identities and stretches seen recently, by some of their bytes. */
    Entry recent[RECENT];
    KnownStretch *recent_stretches[STRETCHES];
    /* Numbers of what stretches say. */
    Names said[STRETCHES][SIDES];
} Scanner;

/* -- record.c ------------------------------------------------------------------------------------------------------ */

/* BROKEN: the text is not what it should be. STRANGE: a record for Python. */
enum { BROKEN, STRANGE, REGULAR };

/* Prepare the tables; call it once. */
void prepare_records(void);

/* Read the members of the record at `*from`, which is moved behind it. */
int read_record(Scanner *scanner, const char **from, const char *end, Record *record);

/* Remember a stretch of a regular record. Return 0, or -1 with an exception set. */
int learn(Scanner *scanner, int stretch, const Record *record);

/* -- values.c ------------------------------------------------------------------------------------------------------ */

/* Prepare the tables; call it once. */
void prepare_values(void);

/* Return the microseconds since 1970 of a time such as 2024-01-15T08:30:00Z in the years 2002 to 9998; 0 for every
 * other way to write a time. */
int64_t time_of(Slice text);

/* Read the 16 bytes of a UUID in its usual form. Return whether it has that form. */
int uuid_of(Slice text, unsigned char *id);

/* Read a byte count: up to 15 digits, perhaps followed by ".0". Return whether it has that form. */
int count_of(Slice text, int64_t *count, int *is_float);

/* Write a text with its short escapes undone. Return 1, 0 if it has other escapes, -1 with an exception set. */
int unescape(Buffer *to, Slice text);

/* -- naming.c ------------------------------------------------------------------------------------------------------ */

/* Number what a stretch says that was not recognized. Return 0, or -1 with an exception set. */
int say(Scanner *scanner, int stretch, Record *record);

/* Write the name of the call into scanner->name. `anonymous`: userIdentity names no account. Return 1, 0 if the record
 * is not regular, -1 with an exception set. */
int name_what(Scanner *scanner, Record *record, int anonymous);

/* Write the name of the origin into scanner->name. Return 0, or -1 with an exception set. */
int name_place(Scanner *scanner, const Record *record);

/* Write an object of some of another object's members: those whose bit in `without` is not set. */
int put_members(Buffer *to, const Parts *parts, uint64_t without);

/* -- columns.c ----------------------------------------------------------------------------------------------------- */

/* Make room for another row. Return 0, or -1 with an exception set. */
int more_rows(Columns *columns);

/* Set a text of the row that is being written. Return 0, or -1 with an exception set. */
int put_text(Columns *columns, int which, Slice text, int present);

/* What a row has besides its texts. */
typedef struct {
    int64_t time, bytes_in, bytes_out;
    const unsigned char *id; /* 16 bytes */
    int32_t who, place, what, object;
    uint32_t check;
    int has_in, has_out;
} Numbers;

/* Complete the row whose texts are set. */
void complete_row(Columns *columns, const Numbers *numbers);

/* Keep the first rows only, and nothing of a row that was not completed. */
void keep_rows(Columns *columns, size_t rows);

/* Return all columns by name as Scanner.take does; NULL with an exception set. */
PyObject *columns_dict(const Columns *columns);

void free_columns(Columns *columns);

#endif
