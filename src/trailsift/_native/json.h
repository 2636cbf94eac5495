/* JSON as CloudTrail writes it: where values end. See json.c. */
#ifndef TRAILSIFT_JSON_H
#define TRAILSIFT_JSON_H

#include "text.h"

/* What a value has in it; the last one: an escape in the name of a member, which may so be any name. */
enum { HAS_ESCAPE = 1, HAS_HIGH = 2, HAS_ESCAPED_NAME = 4 };

/* Values nested more deeply are left to Python, and so are longer numbers, which it does not read. */
#define DEPTH_LIMIT 48
#define DIGITS_LIMIT 4300

/* One member of an object. */
typedef struct {
    Slice name, value;
    int flags; /* of the value */
} Member;

/* The members of one object, collected while it is checked. */
#define PARTS 40
typedef struct {
    Member at[PARTS];
    int count; /* -1: more members than there is room for */
} Parts;

/* Prepare the tables and choose the instructions; call it once, before anything else here. `simd`: whether to use more
 * than the compiler was allowed to. */
void prepare_json(int simd);

/* Return the closing quote of the string whose first byte is at `at`; NULL if the string is not valid or has no end. */
const char *string_end(const char *at, const char *end, int *flags);

/* Return the first byte behind the digits at `at`; NULL if there is none. */
const char *digits_end(const char *at, const char *end);

/* Return the first byte behind the value at `at`; NULL if it is not valid, contains blanks or is nested too deeply. */
const char *value_end(const char *at, const char *end, int depth, int *flags);

/* As value_end, for an object at `at`. Its members go into `parts`. */
const char *object_end(const char *at, const char *end, int *flags, Parts *parts);

/* Read the member at `at` (a comma or the opening brace may stand before it). Return the first byte behind it, or NULL
 * at the closing brace and if there is no valid member. */
const char *next_member(const char *at, const char *end, Member *member);

/* Return whether a text is UTF-8 as Python reads it: no overlong forms, no surrogates, nothing above U+10FFFF. */
int is_utf8(const char *at, const char *end);

/* Return where `what` first occurs, NULL if it does not. `size` is at least 1. */
const char *find(const char *at, const char *end, const char *what, size_t size);

#endif
