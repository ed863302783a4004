// Shared memory of the block that runs: filled anew, with something behind each array
// that shows a write too far.
#pragma once
#include "ck_state.h"

namespace {

// Filled with 0xFF: NaN as float and as double, -1 as int. Made by the scheduler, before
// any thread runs, so that to ThreadSanitizer no thread has touched it.
void prepare_shared()
{
#if !defined(CK_ADDRESS)
    memset(team->arena.data(), 0xFF, team->arena.size());
    arena_used = 0;
#endif
}

// AddressSanitizer guards each allocation; without it a gap behind each array does.
char* new_shared(size_t bytes)
{
#if defined(CK_ADDRESS)
    char* memory = (char*)malloc(bytes);
    memset(memory, 0xFF, bytes);
#else
    char* memory = team->arena.data() + arena_used;
    arena_used += (bytes + GAP + 15) / 16 * 16;
#endif
    shared_arrays.push_back({memory, bytes});
    return memory;
}

void check_gaps()
{
#if !defined(CK_ADDRESS)
    for (const SharedArray& array : shared_arrays)
        for (size_t i = array.bytes; i < array.bytes + GAP; ++i)
            if ((unsigned char)array.memory[i] != 0xFF) {
                fail("shared memory was written %zu bytes behind an array of %zu bytes",
                     i - array.bytes, array.bytes);
                return;
            }
#endif
}

void free_shared()
{
#if defined(CK_ADDRESS)
    for (const SharedArray& array : shared_arrays) free(array.memory);
#endif
    shared_arrays.clear();
    static_bytes = 0;
}

}  // namespace
