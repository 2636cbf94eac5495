/* Hashes with a secret, for tables whose keys come out of log files.
 *
 * Whoever writes a log chooses the texts in it (an anonymous caller chooses a user agent and an object key). With a
 * fixed hash such a caller could send texts that all collide, and each record would cost as much as all before it.
 * So every process draws a secret. The steps are those of wyhash (Wang Yi, public domain): multiply two secret-masked
 * words to 128 bits and fold the halves. What the secret is must never change what comes out of a table.
 */
#ifndef TRAILSIFT_HASH_H
#define TRAILSIFT_HASH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define SECRET_WORDS 4
typedef struct {
    uint64_t word[SECRET_WORDS];
} Secret;

/* Fill a secret from the system's random numbers. Return 0, or -1 with an exception set. */
static inline int draw_secret(Secret *secret) {
    PyObject *os = PyImport_ImportModule("os");
    if (os == NULL) return -1;
    PyObject *bytes = PyObject_CallMethod(os, "urandom", "i", (int)sizeof *secret);
    Py_DECREF(os);
    if (bytes == NULL) return -1;
    if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != sizeof *secret) {
        Py_DECREF(bytes);
        PyErr_SetString(PyExc_RuntimeError, "os.urandom returned something else than bytes");
        return -1;
    }
    memcpy(secret, PyBytes_AS_STRING(bytes), sizeof *secret);
    Py_DECREF(bytes);
    return 0;
}

static inline uint64_t folded_product(uint64_t left, uint64_t right) {
#ifdef __SIZEOF_INT128__
    unsigned __int128 product = (unsigned __int128)left * right;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t a = left >> 32, b = (uint32_t)left, c = right >> 32, d = (uint32_t)right;
    uint64_t low = b * d, middle = a * d + (low >> 32), other = b * c + (uint32_t)middle;
    return (a * c + (middle >> 32) + (other >> 32)) ^ (other << 32 | (uint32_t)low);
#endif
}

static inline uint64_t word_at(const char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t hash_number(const Secret *secret, uint64_t number) {
    return folded_product(number ^ secret->word[0], secret->word[1]);
}

static inline uint64_t hash_bytes(const Secret *secret, const char *at, size_t size) {
    const uint64_t *mask = secret->word;
    uint64_t hash = mask[0] ^ size;
    if (size >= 64) {
        /* Two lanes, since each step waits for the one before. */
        uint64_t other = hash;
        for (; size >= 32; at += 32, size -= 32) {
            hash = folded_product(word_at(at) ^ mask[1], word_at(at + 8) ^ hash);
            other = folded_product(word_at(at + 16) ^ mask[2], word_at(at + 24) ^ other);
        }
        hash ^= other;
    }
    for (; size >= 16; at += 16, size -= 16) hash = folded_product(word_at(at) ^ mask[1], word_at(at + 8) ^ hash);
    char last[16] = {0};
    if (size) memcpy(last, at, size);
    return folded_product(word_at(last) ^ mask[3], word_at(last + 8) ^ hash);
}

#endif
