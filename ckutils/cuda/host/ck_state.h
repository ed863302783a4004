// What the scheduler knows: the threads of the block that runs, what they wait for, what
// went wrong; and the changes from one thread to another, of which sanitizers are told.
#pragma once
#include "ck_cuda.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include "ck_faults.h"
#include "ck_fibre.h"
#include "ck_runtime.h"
#include <algorithm>
#include <cstdarg>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

enum State { READY, AT_BARRIER, IN_WARP, FINISHED };
enum Operation { SYNC, SHUFFLE, BALLOT };
const char* const OPERATION[] = {"__syncwarp", "a shuffle", "a vote"};

struct Fibre {
    CkThread ids;
    CkContext context;
    State state;
    int line, index;
    // at a barrier or in a vote
    int vote, barriers;
    // in a warp operation
    Operation operation;
    unsigned mask;
    int partner, width;
    uint64_t value, result;
    unsigned syncs, parities;
    bool fenced;  // has passed a __threadfence
    void* sanitizer;  // ASan's fake stack, TSan's fibre
};

struct SharedArray { char* memory; size_t bytes; };

const size_t GAP = 64;             // bytes behind a shared array that nobody may touch
const size_t STATIC_SHARED = 48 * 1024;
const size_t MOST_ARRAYS = 512;
const size_t SPARE = MOST_ARRAYS * (GAP + 16);
const int LIMIT_OF_PAUSES = 100000;  // rounds in which threads only paused
const size_t WATCHED = 512;        // fibres that TSan tells apart: each takes 0.8 MB

const CkLaunch* launch;
std::vector<Fibre> fibres;
std::vector<int> order;
CkStacks stacks;
CkContext scheduler;
Fibre* current;
char error[512];  // empty if all is well
unsigned long block_number;
unsigned long long switches;
int at_barrier, barrier_line, votes, finished, barrier_result;
bool moved;  // something other than a pause happened in this round
std::vector<SharedArray> shared_arrays;
size_t arena_used;
size_t static_bytes;
char* dynamic_shared;

// Sanitizers ----------------------------------------------------------------------

#if defined(CK_ADDRESS)
void* scheduler_fake;
const void* scheduler_stack;
size_t scheduler_bytes;
#elif defined(CK_THREAD)
void* scheduler_fibre;
#endif

// What a block runs on. ThreadSanitizer takes two uses of one stack, or of one piece of
// shared memory, for the same thread's or for a race; so blocks take turns among several
// teams, and races are seen between blocks that are fewer turns apart. Elsewhere there is
// one team.
struct Team {
    std::vector<void*> fibres;  // TSan's
    size_t first_stack;
    std::vector<char> arena;
    char start, done, barrier[2], warp[1024][2];  // addresses to synchronise on
};
std::vector<Team> teams;
Team* team;

void release_to(char* object)
{
#if defined(CK_THREAD)
    __tsan_release(object);
#endif
    (void)object;
}

void acquire_from(char* object)
{
#if defined(CK_THREAD)
    __tsan_acquire(object);
#endif
    (void)object;
}

void leave_fibre()
{
    ++switches;
#if defined(CK_ADDRESS)
    void** fake = current->state == FINISHED ? nullptr : &current->sanitizer;
    __sanitizer_start_switch_fiber(fake, scheduler_stack, scheduler_bytes);
#elif defined(CK_THREAD)
    __tsan_switch_to_fiber(scheduler_fibre, 1);
#endif
    Fibre* self = current;
    ck_switch(&self->context, &scheduler);
#if defined(CK_ADDRESS)
    __sanitizer_finish_switch_fiber(self->sanitizer, &scheduler_stack, &scheduler_bytes);
#endif
}

void enter_fibre(Fibre& fibre)
{
    current = &fibre;
    ck_thread = &fibre.ids;
#if defined(CK_ADDRESS)
    __sanitizer_start_switch_fiber(&scheduler_fake, stacks.at(fibre.index),
                                   CkStacks::BYTES);
#elif defined(CK_THREAD)
    __tsan_switch_to_fiber(fibre.sanitizer, 1);
#endif
    ck_switch(&scheduler, &fibre.context);
#if defined(CK_ADDRESS)
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

// Errors --------------------------------------------------------------------------

bool failed() { return error[0] != '\0'; }

__attribute__((format(printf, 1, 2))) void fail(const char* format, ...)
{
    if (failed()) return;  // the first one is the cause
    va_list values;
    va_start(values, format);
    vsnprintf(error, sizeof error, format, values);
    va_end(values);
}

struct Text { char c_str[128]; };

Text place_of(const Fibre& fibre)
{
    const uint3 t = fibre.ids.thread, b = fibre.ids.block;
    Text text;
    snprintf(text.c_str, sizeof text.c_str, "thread (%u, %u, %u) of block (%u, %u, %u)",
             t.x, t.y, t.z, b.x, b.y, b.z);
    return text;
}

// The fibre that failed never runs again; the scheduler sees the error and ends.
[[noreturn]] void abandon()
{
    release_to(&team->done);
    for (;;) leave_fibre();
}

}  // namespace
