// The CPU pass and the rounding of kappa behind a C interface, for the tests only.
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "cpu_kernel.h"

namespace {

template <class E>
void apply(int isa, const void* in, void* out, std::size_t count, float kappa, float cap, bool has_cap) {
  using Bits = typename E::Bits;
  const jr::Jump<Bits> jump = jr::make_jump<Bits>(E::round(kappa), E::kInfinity, has_cap ? E::round(cap) : E::kInfinity);
  const auto pass = jr::select_pass<Bits>(static_cast<jr::Isa>(isa), has_cap);
  pass(static_cast<const Bits*>(in), static_cast<Bits*>(out), count, jump);
}

}  // namespace

extern "C" {

int jr_onnx_test_supports(int isa) { return jr::supports(static_cast<jr::Isa>(isa)); }

int jr_onnx_test_chosen_isa() { return static_cast<int>(jr::choose_isa()); }

// dtype: 0 float32, 1 float64, 2 float16, 3 bfloat16.
void jr_onnx_test_apply(int dtype, int isa, const void* in, void* out, std::size_t count, float kappa, float cap,
                        int has_cap) {
  switch (dtype) {
    case 0:
      return apply<jr::Float32>(isa, in, out, count, kappa, cap, has_cap != 0);
    case 1:
      return apply<jr::Float64>(isa, in, out, count, kappa, cap, has_cap != 0);
    case 2:
      return apply<jr::Float16>(isa, in, out, count, kappa, cap, has_cap != 0);
    default:
      return apply<jr::Bfloat16>(isa, in, out, count, kappa, cap, has_cap != 0);
  }
}

std::int64_t jr_onnx_test_round(int dtype, float value) {
  switch (dtype) {
    case 0:
      return jr::Float32::round(value);
    case 1:
      return jr::Float64::round(value);
    case 2:
      return jr::Float16::round(value);
    default:
      return jr::Bfloat16::round(value);
  }
}

// Sets whether this thread flushes denormals to zero, as ONNX Runtime's set_denormal_as_zero leaves it.
int jr_onnx_test_flush_denormals(int on) {
#if defined(__x86_64__)
  constexpr unsigned kFlushAndZero = 0x8040;
  _mm_setcsr(on ? _mm_getcsr() | kFlushAndZero : _mm_getcsr() & ~kFlushAndZero);
  return 1;
#else
  (void)on;
  return 0;
#endif
}
}
