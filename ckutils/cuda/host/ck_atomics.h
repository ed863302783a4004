// Atomic functions, on global and shared memory alike. All return the old value.
#pragma once
#include <type_traits>

template <class T> struct CkSame { typedef T type; };  // the pointer decides T
template <class T> using CkValue = typename CkSame<T>::type;

template <class T, class F>
static inline T ck_atomic(T* address, F change)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics take 4 or 8 bytes");
    using Bits = typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type;
    Bits* place = reinterpret_cast<Bits*>(address);
    Bits before = __atomic_load_n(place, __ATOMIC_RELAXED), after;
    T value, next;
    do {
        std::memcpy(&value, &before, sizeof value);
        next = change(value);
        std::memcpy(&after, &next, sizeof next);
    } while (!__atomic_compare_exchange_n(place, &before, after, false,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
#if defined(CK_THREAD)
    ck_order_atomic(address);
#endif
    return value;
}

#define CK_ATOMIC(NAME, RESULT)                                                        \
    template <class T> static inline T NAME(T* address, CkValue<T> v)                  \
    {                                                                                  \
        return ck_atomic(address, [v](T old) -> T { return RESULT; });                 \
    }

CK_ATOMIC(atomicAdd, old + v)
CK_ATOMIC(atomicSub, old - v)
CK_ATOMIC(atomicExch, v)
CK_ATOMIC(atomicMin, v < old ? v : old)
CK_ATOMIC(atomicMax, v > old ? v : old)
CK_ATOMIC(atomicAnd, old & v)
CK_ATOMIC(atomicOr, old | v)
CK_ATOMIC(atomicXor, old ^ v)
CK_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
CK_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef CK_ATOMIC

template <class T>
static inline T atomicCAS(T* address, CkValue<T> expected, CkValue<T> v)
{
    return ck_atomic(address, [=](T old) -> T { return old == expected ? v : old; });
}
