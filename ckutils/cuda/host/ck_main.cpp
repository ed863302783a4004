// One launch as a program of its own: a sanitizer must be there from the start of a
// process. Reads a request, runs the kernel, writes the reply.
#include "ck_runtime.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#if defined(CK_ADDRESS)
#include <sanitizer/asan_interface.h>
#endif

static FILE* request;

static uint64_t number()
{
    uint64_t value = 0;
    if (fread(&value, sizeof value, 1, request) != 1) exit(3);
    return value;
}

struct Argument { uint64_t is_array, bytes, offset; char* data; };

#if defined(CK_THREAD)
const size_t GUARD = 256;  // what is beside an array is no race; other modes look there
#else
const size_t GUARD = 0;
#endif

// An allocation of its own, that ends with the array and starts `offset` bytes before
// it, at a multiple of 256: as far from one as the caller's array is.
static Argument read_argument()
{
    Argument argument = {number(), number(), number(), nullptr};
    void* memory = nullptr;
    const size_t all = GUARD + argument.offset + argument.bytes + GUARD;
    if (posix_memalign(&memory, 256, all ? all : 1)) exit(4);
    memset(memory, 0xFF, all);
    argument.data = (char*)memory + GUARD + argument.offset;
    if (argument.bytes && fread(argument.data, argument.bytes, 1, request) != 1) exit(3);
#if defined(CK_ADDRESS)
    __asan_poison_memory_region(memory, argument.offset / 8 * 8);
#endif
    return argument;
}

int main(int count, char** words)
{
    if (count != 3 || !(request = fopen(words[1], "rb"))) return 2;
    CkLaunch launch = {};
    launch.call = ck_kernels[number()].call;
    for (unsigned& size : launch.grid) size = (unsigned)number();
    for (unsigned& size : launch.block) size = (unsigned)number();
    launch.shared_bytes = number();
    launch.shared_limit = number();
    launch.schedule = (long long)number();
    std::vector<Argument> arguments(number());
    for (Argument& argument : arguments) argument = read_argument();
    std::vector<void*> places;
    for (Argument& argument : arguments)
        places.push_back(argument.is_array ? (void*)&argument.data : argument.data);
    launch.args = places.data();

    unsigned long long switches = 0;
    const char* error = ck_launch(&launch, &switches);

    FILE* reply = fopen(words[2], "wb");
    const uint64_t length = error ? strlen(error) : 0;
    fwrite(&switches, sizeof switches, 1, reply);
    fwrite(&length, sizeof length, 1, reply);
    if (error) fwrite(error, 1, length, reply);
    for (const Argument& argument : arguments)
        if (argument.is_array && !error) fwrite(argument.data, 1, argument.bytes, reply);
    fclose(reply);
    _Exit(0);  // what stopped threads still hold is not freed: that would be a race
}
