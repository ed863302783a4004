// What the launching side and the runtime share.
#pragma once
#include <cstddef>

extern "C" {
struct CkKernel { const char* name; void (*call)(void**); };
extern __attribute__((visibility("default"))) const CkKernel ck_kernels[];  // ends with a null name

struct CkLaunch {
    void (*call)(void**);
    void** args;
    unsigned grid[3], block[3];
    size_t shared_bytes, shared_limit;
    long long schedule;  // 0 in order, negative in reverse, else the seed of a shuffle
};

// Null, or the text of an error that is valid until the next launch.
__attribute__((visibility("default"))) const char* ck_launch(const CkLaunch* launch, unsigned long long* switch_count);
}
