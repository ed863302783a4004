// A fibre: a stack of its own and a place in the code, left and entered by hand. On
// x86-64 a switch is twelve instructions; elsewhere ucontext does the same with two
// system calls. The sanitizers are told of every switch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(CK_UCONTEXT)
struct CkContext { void* stack_pointer; };

extern "C" void ck_switch(CkContext* from, CkContext* to);
// Saves what a function must preserve, changes the stack, restores, and returns to
// where the other fibre called.
asm(R"(
.text
.local ck_switch
.type ck_switch, @function
ck_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov (%rsi), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size ck_switch, . - ck_switch
)");

static void ck_prepare(CkContext* context, char* stack, size_t bytes, void (*entry)())
{
    // Seen from `entry`: a return address of 0, 8 bytes below a multiple of 16
    uintptr_t top = ((uintptr_t)stack + bytes) & ~(uintptr_t)15;
    void** place = (void**)top - 1;
    *place-- = nullptr;
    *place-- = (void*)entry;
    for (int saved = 0; saved < 6; ++saved) *place-- = nullptr;
    context->stack_pointer = place + 1;
}
#else
#include <ucontext.h>
struct CkContext { ucontext_t context; };

static inline void ck_switch(CkContext* from, CkContext* to)
{
    swapcontext(&from->context, &to->context);
}

static void ck_prepare(CkContext* context, char* stack, size_t bytes, void (*entry)())
{
    getcontext(&context->context);
    context->context.uc_stack.ss_sp = stack;
    context->context.uc_stack.ss_size = bytes;
    context->context.uc_link = nullptr;
    makecontext(&context->context, entry, 0);
}
#endif

#if defined(CK_ADDRESS)
extern "C" void __sanitizer_start_switch_fiber(void**, const void*, size_t);
extern "C" void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
#elif defined(CK_THREAD)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

// Stacks for `count` fibres, each above a page that faults when it is touched.
struct CkStacks {
    static const size_t BYTES = 128 * 1024;
    char* base = nullptr;
    size_t count = 0;

    static size_t page() { return (size_t)sysconf(_SC_PAGESIZE); }
    char* at(size_t i) const { return base + i * (BYTES + page()) + page(); }
    bool is_guard(const void* address) const
    {
        const size_t offset = (const char*)address - base;
        return (const char*)address >= base && offset < count * (BYTES + page()) &&
               offset % (BYTES + page()) < page();
    }
    bool reserve(size_t wanted)
    {
        void* memory = mmap(nullptr, wanted * (BYTES + page()), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return false;
        base = (char*)memory;
        count = wanted;
        for (size_t i = 0; i < count; ++i) mprotect(at(i) - page(), page(), PROT_NONE);
        return true;
    }
};
