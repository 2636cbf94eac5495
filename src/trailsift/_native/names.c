/* Numbers for texts that recur: names of callers, places and calls, as they stand in log files. */
#include "names.h"

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
        for (; entries[slot].size; names->passed++) slot = (slot + 1) & (room - 1);
        entries[slot] = names->entries[at];
    }
    PyMem_Free(names->entries);
    names->entries = entries;
    names->room = room;
    return 0;
}

Entry *entry_of(Names *names, Slice name, uint64_t hash) {
    if (names->used * 2 >= names->room && grow(names) < 0) return NULL;
    size_t slot = hash & (names->room - 1);
    for (;; slot = (slot + 1) & (names->room - 1)) {
        Entry *entry = &names->entries[slot];
        if (entry->size == 0 || (entry->hash == hash && is(name, names->texts.at + entry->start, entry->size)))
            return entry;
        names->passed++;
    }
}

int put_entry(Names *names, Entry *entry, Slice name, uint64_t hash, int64_t code) {
    size_t start = names->texts.size;
    if (append(&names->texts, name.at, name.size) < 0) return -1;
    *entry = (Entry){hash, start, (uint32_t)name.size, code};
    names->used++;
    return 0;
}

void clear_names(Names *names) {
    PyMem_Free(names->entries);
    release(&names->texts);
    memset(names, 0, sizeof *names);
}
