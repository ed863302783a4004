// What the launching side and the runtime share.
#pragma once
#include <cstddef>

#define CK_OFFERED __attribute__((visibility("default")))  // else nothing is

extern "C" {
struct CkKernel { const char* name; void (*call)(void**); };
extern CK_OFFERED const CkKernel ck_kernels[];  // ends with a null name

struct CkLaunch {
    void (*call)(void**);
    void** args;
    unsigned grid[3], block[3];
    size_t shared_bytes, shared_limit;
    long long schedule;  // 0 in order, negative in reverse, else the seed of a shuffle
    char* stacks;  // of ck_make_stacks, or null: then the launch makes its own
    size_t stack_count;
};

// Many kernels can share one set: only so many mappings are allowed. Null if none is left.
CK_OFFERED char* ck_make_stacks(size_t count);

// Null, or the text of an error that is valid until the next launch.
CK_OFFERED const char* ck_launch(const CkLaunch* launch, unsigned long long* switch_count);
}
