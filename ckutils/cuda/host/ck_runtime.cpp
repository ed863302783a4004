// Runs a grid: blocks one after the other, the threads of a block as fibres that hand
// over at barriers, warp operations and pauses. Compiled without -fsanitize=thread, so
// that only the kernel's own reads and writes are compared.
#include "ck_shared.h"
#include "ck_wait.h"

namespace {

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
