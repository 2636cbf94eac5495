/* Numbers for texts that recur. See names.c. */
#ifndef TRAILSIFT_NAMES_H
#define TRAILSIFT_NAMES_H

#include "hash.h"
#include "text.h"

typedef struct {
    uint64_t hash;
    size_t start;
    uint32_t size; /* 0: the slot is empty */
    int64_t code;
} Entry;

/* What the names of one kind stand for: a hash table with open addressing. */
typedef struct {
    Entry *entries;
    size_t room, used;
    /* Slots with another name that lookups have passed over. */
    size_t passed;
    Buffer texts;
} Names;

/* Return the entry of a name, or the empty one to put it into; NULL with MemoryError set. The pointer holds until the
 * next call. */
Entry *entry_of(Names *names, Slice name, uint64_t hash);

/* Fill the entry that entry_of returned empty. Return 0, or -1 with MemoryError set. */
int put_entry(Names *names, Entry *entry, Slice name, uint64_t hash, int64_t code);

/* Forget all names. */
void clear_names(Names *names);

/* Where to look for something among the 2^RECENT_BITS recent ones. */
#define RECENT_BITS 11
#define RECENT (1 << RECENT_BITS)

/* Return a slot by some words of a text: `words` of them at `at`, `others` at `then`; 16 in all at most. All products
 * can be taken at once. A wrong slot costs one lookup, never more, so this hash needs no secret. */
static inline size_t recent_slot(const char *at, int words, const char *then, int others) {
    static const uint64_t ODD[16] = {
        0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93,
        0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0xFF51AFD7ED558CCD,
        0xC4CEB9FE1A85EC53, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3,
        0x589965CC75374CC3, 0x1D8E4E27C47D124F, 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85,
    };
    uint64_t sum = 0;
    for (int place = 0; place < words; place++) sum += word_at(at + 8 * place) * ODD[place];
    for (int place = 0; place < others; place++) sum += word_at(then + 8 * place) * ODD[words + place];
    return (sum ^ sum >> 32) * ODD[0] >> (64 - RECENT_BITS);
}

#endif
