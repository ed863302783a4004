// The device functions that C++ lacks. The fast ones (__expf) are as exact here as the
// others: a GPU's rounding of them is not emulated.
#pragma once

#define CK_MIN_MAX(T)                                                                  \
    static inline T min(T a, T b) { return b < a ? b : a; }                            \
    static inline T max(T a, T b) { return a < b ? b : a; }
CK_MIN_MAX(int)
CK_MIN_MAX(unsigned int)
CK_MIN_MAX(long)
CK_MIN_MAX(unsigned long)
CK_MIN_MAX(long long)
CK_MIN_MAX(unsigned long long)
#undef CK_MIN_MAX
static inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
static inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
static inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
static inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }

// Macros, because C libraries have functions of these names, of their own.
#define rsqrtf ck_rsqrtf
#define rsqrt ck_rsqrt
#define sinpif ck_sinpif
#define sinpi ck_sinpi
#define cospif ck_cospif
#define cospi ck_cospi
static const double CK_PI = 3.14159265358979323846;
static inline float ck_rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float ck_rsqrt(float x) { return ck_rsqrtf(x); }
static inline double ck_rsqrt(double x) { return 1.0 / sqrt(x); }
// Reduced before pi is multiplied on, so that sinpi(3) and cospi(0.5) are 0, as there.
static inline double ck_sinpi(double x)
{
    const double r = remainder(x, 2.0);  // in [-1, 1]
    return sin(CK_PI * (fabs(r) > 0.5 ? copysign(1.0, r) - r : r));
}
static inline double ck_cospi(double x)
{
    return sin(CK_PI * (0.5 - fabs(remainder(x, 2.0))));
}
static inline float ck_sinpif(float x) { return (float)ck_sinpi((double)x); }
static inline float ck_cospif(float x) { return (float)ck_cospi((double)x); }
static inline void sincospi(double x, double* s, double* c)
{
    *s = ck_sinpi(x);
    *c = ck_cospi(x);
}
static inline void sincospif(float x, float* s, float* c)
{
    *s = ck_sinpif(x);
    *c = ck_cospif(x);
}

#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __sincosf sincosf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return ck_rsqrtf(x); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __mulhi(int a, int b) { return (int)(((long long)a * b) >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)(((unsigned long long)a * b) >> 32);
}
static inline unsigned __brev(unsigned x)
{
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed = reversed << 1 | (x >> bit & 1u);
    return reversed;
}

template <class To, class From> static inline To ck_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "a change of type, not of size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) { return ck_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return ck_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return ck_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return ck_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return ck_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return ck_bits<double>(x); }

// Hints about caches: a plain read, a plain write.
template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldca(const T* p) { return *p; }
template <class T> static inline T __ldcg(const T* p) { return *p; }
template <class T> static inline T __ldcs(const T* p) { return *p; }
template <class T> static inline T __ldlu(const T* p) { return *p; }
template <class T> static inline void __stcg(T* p, CkValue<T> v) { *p = v; }
template <class T> static inline void __stcs(T* p, CkValue<T> v) { *p = v; }
template <class T> static inline void __stwb(T* p, CkValue<T> v) { *p = v; }
template <class T> static inline void __stwt(T* p, CkValue<T> v) { *p = v; }
