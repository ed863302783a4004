// CUDA's vector types, with CUDA's alignment: a float4 is read in one piece, so its
// address must be a multiple of 16.
#pragma once

#define CK_VECTOR_TYPES(T, NAME, A2, A4)                                               \
    struct NAME##1 { T x; };                                                           \
    struct alignas(A2) NAME##2 { T x, y; };                                            \
    struct NAME##3 { T x, y, z; };                                                     \
    struct alignas(A4) NAME##4 { T x, y, z, w; };                                      \
    static inline NAME##1 make_##NAME##1(T x) { return {x}; }                          \
    static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                  \
    static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }          \
    static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CK_VECTOR_TYPES(signed char, char, 2, 4)
CK_VECTOR_TYPES(unsigned char, uchar, 2, 4)
CK_VECTOR_TYPES(short, short, 4, 8)
CK_VECTOR_TYPES(unsigned short, ushort, 4, 8)
CK_VECTOR_TYPES(int, int, 8, 16)
CK_VECTOR_TYPES(unsigned int, uint, 8, 16)
CK_VECTOR_TYPES(long long, longlong, 16, 16)
CK_VECTOR_TYPES(unsigned long long, ulonglong, 16, 16)
CK_VECTOR_TYPES(float, float, 8, 16)
CK_VECTOR_TYPES(double, double, 16, 16)
#undef CK_VECTOR_TYPES

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
