/* Times, ids, byte counts and messages, in the forms in which CloudTrail writes them. Every other form is refused, and
 * the record is left to Python. */
#include "scanner.h"

static int two_digits(const char *at) {
    if (at[0] < '0' || at[0] > '9' || at[1] < '0' || at[1] > '9') return -1;
    return (at[0] - '0') * 10 + at[1] - '0';
}

int64_t time_of(Slice text) {
    static const int LENGTHS[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *at = text.at;
    if (text.size != 20 || at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':' ||
        at[19] != 'Z')
        return 0;
    int century = two_digits(at), year = two_digits(at + 2), month = two_digits(at + 5), day = two_digits(at + 8);
    int hour = two_digits(at + 11), minute = two_digits(at + 14), second = two_digits(at + 17);
    if (century < 0 || year < 0 || month < 1 || month > 12 || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
        second < 0 || second > 59)
        return 0;
    year += century * 100;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 2002 || year > 9998 || day < 1 || day > LENGTHS[month - 1] + (leap && month == 2)) return 0;
    /* Days since 1970, counted in years that begin in March, so that the leap day comes last. */
    int64_t shifted = year - (month <= 2), era = shifted / 400, of_era = shifted - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t days = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000000;
}

/* Values of hexadecimal digits as UUIDs have them; 255 for every other byte. */
static unsigned char NIBBLE[256];

void prepare_values(void) {
    memset(NIBBLE, 255, sizeof NIBBLE);
    for (int digit = 0; digit < 16; digit++) NIBBLE[(unsigned char)"0123456789abcdef"[digit]] = (unsigned char)digit;
}

int uuid_of(Slice text, unsigned char *id) {
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

int count_of(Slice text, int64_t *count, int *is_float) {
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

int unescape(Buffer *to, Slice text) {
    to->size = 0;
    char *out = reserve(to, text.size);
    if (out == NULL) return -1;
    for (const char *at = text.at, *end = at + text.size; at < end; at++) {
        char sign = *at;
        if (sign == '\\') {
            switch (sign = peek(++at, end)) {
                case 'b':
                    sign = '\b';
                    break;
                case 'f':
                    sign = '\f';
                    break;
                case 'n':
                    sign = '\n';
                    break;
                case 'r':
                    sign = '\r';
                    break;
                case 't':
                    sign = '\t';
                    break;
                case 'u':
                    return 0;
            }
        }
        *out++ = sign;
    }
    to->size = (size_t)(out - to->at);
    return 1;
}
