// Undefined behaviour inside a kernel: the compiler's checks (-fsanitize=undefined) call
// these functions, which end the launch with a message.
// Compiled without -fsanitize, under which g++ knows these names already.
#include <cstdint>

extern "C" [[noreturn]] void ck_stop(const char* what, int line);


struct CkPlace { const char* file; uint32_t line, column; };  // starts each report

#define CK_CHECK(NAME, TEXT)                                                           \
    extern "C" void __ubsan_handle_##NAME(const CkPlace* place)                        \
    {                                                                                  \
        ck_stop(TEXT, (int)place->line);                                               \
    }
CK_CHECK(out_of_bounds, "index out of the bounds of an array")
CK_CHECK(shift_out_of_bounds, "shift by a negative or too large number")
CK_CHECK(add_overflow, "signed integer overflow in an addition")
CK_CHECK(sub_overflow, "signed integer overflow in a subtraction")
CK_CHECK(mul_overflow, "signed integer overflow in a multiplication")
CK_CHECK(negate_overflow, "signed integer overflow in a negation")
CK_CHECK(divrem_overflow, "integer division by zero or overflow")
CK_CHECK(vla_bound_not_positive, "array of a size that is not positive")
CK_CHECK(missing_return, "a function ends without returning a value")
CK_CHECK(builtin_unreachable, "unreachable code is reached")
#undef CK_CHECK

extern "C" void __ubsan_handle_type_mismatch_v1(const CkPlace* place, uintptr_t pointer)
{
    ck_stop(pointer ? "misaligned address" : "null pointer", (int)place->line);
}
