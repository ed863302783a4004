// A memory fault inside a kernel ends the launch with a message, not the process. Left
// out where a sanitizer reports faults itself.
#pragma once
#include <csetjmp>
#include <csignal>
#include <pthread.h>

struct CkFaults {
    sigjmp_buf escape;
    pthread_t thread;
    const void* address;
    struct sigaction before[2];
    stack_t stack_before;
    char stack[64 * 1024];
};
static CkFaults ck_faults;
static const int CK_SIGNALS[2] = {SIGSEGV, SIGBUS};

static void ck_on_fault(int signal, siginfo_t* info, void*)
{
    if (!pthread_equal(pthread_self(), ck_faults.thread)) {  // not the kernel's
        sigaction(signal, &ck_faults.before[signal == SIGBUS], nullptr);
        return;  // the fault happens again, for whoever handled it before
    }
    ck_faults.address = info->si_addr;
    siglongjmp(ck_faults.escape, 1);
}

// Calls `run`; returns whether it ended without a fault.
static bool ck_guarded(void (*run)())
{
#if defined(CK_ADDRESS) || defined(CK_THREAD)
    run();
    return true;
#else
    stack_t stack = {};
    stack.ss_sp = ck_faults.stack;
    stack.ss_size = sizeof ck_faults.stack;
    ck_faults.thread = pthread_self();
    sigaltstack(&stack, &ck_faults.stack_before);
    struct sigaction action = {};
    action.sa_sigaction = ck_on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 2; ++i) sigaction(CK_SIGNALS[i], &action, &ck_faults.before[i]);
    const bool good = sigsetjmp(ck_faults.escape, 1) == 0;
    if (good) run();
    for (int i = 0; i < 2; ++i) sigaction(CK_SIGNALS[i], &ck_faults.before[i], nullptr);
    sigaltstack(&ck_faults.stack_before, nullptr);
    return good;
#endif
}
