// Runs a grid: blocks one after the other, the threads of a block as fibres that hand
// over at barriers, warp operations and pauses. Compiled without -fsanitize=thread, so
// that only the kernel's own reads and writes are compared.
#include "ck_cuda.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include "ck_runtime.h"
#include "ck_fibre.h"
#include "ck_faults.h"
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

// Barriers ------------------------------------------------------------------------

void complete_barrier()
{
    barrier_result = votes;
    at_barrier = votes = 0;
    for (Fibre& fibre : fibres) fibre.state = READY;
    moved = true;
}

const Fibre* first_in(State state)
{
    for (const Fibre& fibre : fibres)
        if (fibre.state == state) return &fibre;
    return nullptr;
}

// Warps ---------------------------------------------------------------------------

Fibre* lane_of(const Fibre& self, int lane)
{
    const size_t index = (self.index & ~31) + lane;
    return index < fibres.size() ? &fibres[index] : nullptr;
}

bool takes_part(const Fibre& self, const Fibre* other)
{
    return other && other->state == IN_WARP && other->mask == self.mask &&
           other->operation == self.operation && other->line == self.line;
}

// A lane that has returned, or that the block does not have, is not waited for.
bool everyone_is_here(const Fibre& self)
{
    for (int lane = 0; lane < 32; ++lane) {
        if (!(self.mask >> lane & 1)) continue;
        const Fibre* other = lane_of(self, lane);
        if (other && other->state != FINISHED && !takes_part(self, other)) return false;
    }
    return true;
}

void exchange(Fibre& self)
{
    const Fibre* source = lane_of(self, self.partner);
    const bool named = self.mask >> self.partner & 1;
    if (named && takes_part(self, source)) {
        self.result = source->value;
        return;
    }
    const char* why = !named ? "which its mask does not name"
                      : !source ? "which the block does not have"
                                : "which has returned";
    fail("line %d: a shuffle reads lane %d, %s (%s)", self.line, self.partner, why,
         place_of(self).c_str);
}

void complete_warp(Fibre& self)
{
    unsigned here = 0, ballot = 0, parities = 0;
    for (int lane = 0; lane < 32; ++lane) {
        Fibre* other = lane_of(self, lane);
        if (!(self.mask >> lane & 1) || !takes_part(self, other)) continue;
        here |= 1u << lane;
        ballot |= (unsigned)(other->vote != 0) << lane;
        parities |= (other->syncs & 1) << lane;
    }
    for (int lane = 0; lane < 32; ++lane)
        if (here >> lane & 1 && self.operation == SHUFFLE) exchange(*lane_of(self, lane));
    for (int lane = 0; lane < 32; ++lane) {
        if (!(here >> lane & 1)) continue;
        Fibre& other = *lane_of(self, lane);
        if (self.operation == BALLOT) other.result = ballot;
        other.parities = parities;
        other.state = READY;
    }
    moved = true;
}

// The lanes of its warp that waited only for this one, which has returned, go on.
void stop_waiting_for(const Fibre& gone)
{
    for (int lane = 0; lane < 32; ++lane) {
        Fibre* other = lane_of(gone, lane);
        if (other && other->state == IN_WARP && everyone_is_here(*other))
            complete_warp(*other);
    }
}

void join_warp(Operation operation, unsigned mask, int line)
{
    Fibre& self = *current;
    if (!(mask >> (self.index % 32) & 1)) {
        fail("line %d: %s is called by lane %d, which its mask does not name (%s)", line,
             OPERATION[operation], self.index % 32, place_of(self).c_str);
        abandon();
    }
    self.operation = operation;
    self.mask = mask;
    self.line = line;
    self.state = IN_WARP;
    if (everyone_is_here(self)) complete_warp(self);
    if (self.state != READY || failed()) leave_fibre();
}

// When nobody can go on -------------------------------------------------------------

void explain_warp(const Fibre& self)
{
    for (int lane = 0; lane < 32; ++lane) {
        const Fibre* other = lane_of(self, lane);
        if (!(self.mask >> lane & 1) || !other || other->state == FINISHED ||
            takes_part(self, other))
            continue;
        const char* what = other->state == AT_BARRIER ? "__syncthreads"
                                                      : OPERATION[other->operation];
        fail("line %d: %s waits for lane %d, which waits at %s in line %d (%s)",
             self.line, OPERATION[self.operation], lane, what, other->line,
             place_of(self).c_str);
        return;
    }
}

void explain_standstill()
{
    if (const Fibre* fibre = first_in(IN_WARP)) {
        explain_warp(*fibre);
        return;
    }
    const Fibre* waiting = first_in(AT_BARRIER);
    fail("line %d: __syncthreads is reached by %d of %zu threads; the others have "
         "returned, such as %s",
         waiting->line, at_barrier, fibres.size(), place_of(*first_in(FINISHED)).c_str);
}

void explain_fault()
{
    const char* what = stacks.is_guard(ck_faults.address)
                           ? "the stack of a thread overflows at"
                           : "no argument and no shared array is at";
    fail("%s address %p (%s)", what, ck_faults.address, place_of(*current).c_str);
}

// Shared memory -------------------------------------------------------------------

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

// Blocks --------------------------------------------------------------------------

void entry()
{
#if defined(CK_ADDRESS)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
    acquire_from(&team->start);
    launch->call(launch->args);
    current->state = FINISHED;
    ++finished;
    moved = true;
    stop_waiting_for(*current);
    abandon();
}

uint3 unravel(size_t index, const unsigned* size)
{
    return {(unsigned)(index % size[0]), (unsigned)(index / size[0] % size[1]),
            (unsigned)(index / size[0] / size[1])};
}

void start_fibres(size_t block)
{
    const unsigned *b = launch->block, *g = launch->grid;
    for (size_t i = 0; i < fibres.size(); ++i) {
        Fibre& fibre = fibres[i];
        fibre = Fibre();
        fibre.ids = {unravel(i, b), unravel(block, g), dim3(b[0], b[1], b[2]),
                     dim3(g[0], g[1], g[2])};
        fibre.index = (int)i;
        char* stack = stacks.at(team->first_stack + i);
        ck_prepare(&fibre.context, stack, CkStacks::BYTES, entry);
#if defined(CK_THREAD)
        fibre.sanitizer = team->fibres[i];
#endif
    }
}

// Whether there was memory for all stacks.
bool form_teams(size_t threads, size_t blocks)
{
    size_t count = 1;
#if defined(CK_THREAD)
    count = std::min(blocks, std::max((size_t)2, WATCHED / threads));
#endif
    teams.assign(count, Team());
    shared_arrays.reserve(MOST_ARRAYS);  // so that no thread of the kernel moves it
    for (size_t i = 0; i < count; ++i) {
        teams[i].first_stack = i * threads;
        teams[i].arena.resize(STATIC_SHARED + SPARE + launch->shared_bytes + GAP);
#if defined(CK_THREAD)
        for (size_t t = 0; t < threads; ++t)
            teams[i].fibres.push_back(__tsan_create_fiber(0));
#endif
    }
    if (!launch->stacks) return stacks.reserve(count * threads);
    stacks.base = launch->stacks;
    stacks.count = launch->stack_count;
    return stacks.count >= threads;
}

void run_round()
{
    moved = false;
    for (int i : order) {
        if (fibres[i].state != READY) continue;
        enter_fibre(fibres[i]);
        if (failed()) return;
    }
}

void run_block(size_t block, std::mt19937_64& random)
{
    ++block_number;
    at_barrier = votes = finished = 0;
    dynamic_shared = nullptr;
    team = &teams[block_number % teams.size()];
    acquire_from(&team->done);  // the block that had this team before
    prepare_shared();
    start_fibres(block);
    release_to(&team->start);
    int idle = 0;
    while (finished < (int)fibres.size() && !failed()) {
        if (launch->schedule > 0) std::shuffle(order.begin(), order.end(), random);
        run_round();
        if (failed()) break;
        if (!first_in(READY) && finished < (int)fibres.size()) explain_standstill();
        idle = moved ? 0 : idle + 1;
        if (idle > LIMIT_OF_PAUSES) fail("threads wait for each other without end");
    }
    if (!failed()) check_gaps();
    free_shared();
}

void run_grid()
{
    const unsigned *g = launch->grid, *b = launch->block;
    const size_t blocks = (size_t)g[0] * g[1] * g[2], threads = (size_t)b[0] * b[1] * b[2];
    std::mt19937_64 random(launch->schedule);
    if (!form_teams(threads, blocks)) {
        fail("no memory for the stacks of %zu threads", threads);
        return;
    }
    fibres.resize(threads);
    order.resize(threads);
    for (size_t i = 0; i < threads; ++i)
        order[i] = (int)(launch->schedule < 0 ? threads - 1 - i : i);
    std::vector<unsigned> shuffled;
    if (launch->schedule > 0) {
        for (size_t i = 0; i < blocks; ++i) shuffled.push_back((unsigned)i);
        std::shuffle(shuffled.begin(), shuffled.end(), random);
    }
    for (size_t i = 0; i < blocks && !failed(); ++i)
        run_block(launch->schedule > 0   ? shuffled[i]
                  : launch->schedule < 0 ? blocks - 1 - i
                                         : i,
                  random);
}

}  // namespace

// What a kernel calls ---------------------------------------------------------------

extern "C" {

CkThread* ck_thread;

int ck_barrier(int vote, int line)
{
    Fibre& self = *current;
    if (at_barrier && barrier_line != line) {
        fail("line %d: __syncthreads is reached while others of the block wait at the "
             "one in line %d (%s)", line, barrier_line, place_of(self).c_str);
        abandon();
    }
    barrier_line = line;
    self.state = AT_BARRIER;
    self.line = line;
    ++at_barrier;
    votes += vote;
    // Two in turn: a thread at the next barrier must not order one still leaving this.
    char* object = &team->barrier[++self.barriers & 1];
    release_to(object);
    if (at_barrier == (int)fibres.size()) complete_barrier();
    if (self.state != READY) leave_fibre();
    acquire_from(object);
    return barrier_result;
}

void ck_warp_sync(unsigned mask, int line)
{
    Fibre& self = *current;
#if defined(CK_THREAD)
    ++self.syncs;
    release_to(&team->warp[self.index][self.syncs & 1]);
#endif
    join_warp(SYNC, mask, line);
#if defined(CK_THREAD)
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1 && lane_of(self, lane))
            acquire_from(&team->warp[(self.index & ~31) + lane]
                                            [self.parities >> lane & 1]);
#endif
}

uint64_t ck_shuffle(unsigned mask, uint64_t value, int lane, int width, int line)
{
    Fibre& self = *current;
    if (width < 1 || width > 32 || width & (width - 1)) {
        fail("line %d: the width of a shuffle is a power of two up to 32, got %d", line,
             width);
        abandon();
    }
    self.value = value;
    self.partner = lane;
    join_warp(SHUFFLE, mask, line);
    return self.result;
}

unsigned ck_ballot(unsigned mask, int vote, int line)
{
    current->vote = vote;
    join_warp(BALLOT, mask, line);
    return (unsigned)current->result;
}

void* ck_static_shared(CkSlot* slot, size_t bytes, int line)
{
    if (slot->block != block_number) {
        static_bytes += (bytes + 15) / 16 * 16;
        if (static_bytes > STATIC_SHARED || shared_arrays.size() == MOST_ARRAYS - 1) {
            fail("line %d: %zu bytes of static shared memory; %zu are allowed", line,
                 static_bytes, STATIC_SHARED);
            abandon();
        }
        *slot = {new_shared(bytes), block_number};
        if (launch->shared_bytes + static_bytes > launch->shared_limit) {
            fail("line %d: %zu bytes of shared memory in all; %zu are allowed", line,
                 launch->shared_bytes + static_bytes, launch->shared_limit);
            abandon();
        }
    }
    return slot->memory;
}

void* ck_dynamic_shared(int)
{
    if (!dynamic_shared) dynamic_shared = new_shared(launch->shared_bytes);
    return dynamic_shared;
}

void ck_pause(int line)
{
    current->line = line;
    leave_fibre();
}

void ck_fence(int line)
{
    current->fenced = true;
    ck_pause(line);
}

// An atomic operation sees what those before it saw, and hands on what its thread had
// done when it passed a fence. (It hands on a little more: what was done since.)
void ck_order_atomic(void* address)
{
    acquire_from((char*)address);
    if (current->fenced) release_to((char*)address);
}

void ck_stop(const char* what, int line)
{
    fail("line %d: %s (%s)", line, what, place_of(*current).c_str);
    abandon();
}

char* ck_make_stacks(size_t count)
{
    CkStacks made;
    return made.reserve(count) ? made.base : nullptr;
}

const char* ck_launch(const CkLaunch* wanted, unsigned long long* switch_count)
{
    launch = wanted;
    error[0] = '\0';
    switches = 0;
#if defined(CK_THREAD)
    scheduler_fibre = __tsan_get_current_fiber();
#endif
    if (!ck_guarded(run_grid)) {
        explain_fault();
        free_shared();
    }
    for (Team& each : teams) acquire_from(&each.done);
    *switch_count = switches;
    return failed() ? error : nullptr;
}

}  // extern "C"
