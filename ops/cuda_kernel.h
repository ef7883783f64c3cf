// The element-wise pass on the GPU; no CUDA type appears here, so that the host compiler can read it.
#pragma once

#include <cstdint>

#include "jump_relu.h"

namespace jr {

// Constants that are known when the pass is queued.
template <class E>
struct FixedJump {
  using Element = E;
  using Bits = typename E::Bits;
  Jump<Bits> jump;

  JR_HOST_DEVICE FixedJump ready() const { return *this; }

  template <bool kHasCap>
  JR_HOST_DEVICE Bits apply(Bits z) const {
    return jump_relu<kHasCap>(z, jump);
  }
};

// kappa in device memory, read when the pass runs. The host cannot refuse a kappa that it does not see, so one that is
// negative, infinite, NaN or too large for the element type makes every result NaN.
template <class E>
struct KappaInMemory {
  using Element = E;
  using Bits = typename E::Bits;
  const float* kappa;
  Bits cap;

  struct Ready {
    Jump<Bits> jump;
    bool valid;

    template <bool kHasCap>
    JR_HOST_DEVICE Bits apply(Bits z) const {
      return valid ? jump_relu<kHasCap>(z, jump) : E::kNan;
    }
  };

  JR_HOST_DEVICE Ready ready() const {
    const float value = *kappa + 0.0f;  // -0 becomes +0, whose bits are the ones the comparison expects
    const Bits rounded = E::round(value);
    return {make_jump<Bits>(rounded, E::kInfinity, cap), value >= 0 && rounded < E::kInfinity};
  }
};

// What the passes are instantiated for: both sources of kappa, for the four element types.
#define JR_FOR_EACH_SITE(instantiate) \
  instantiate(FixedJump<Float32>);     \
  instantiate(FixedJump<Float64>);     \
  instantiate(FixedJump<Float16>);     \
  instantiate(FixedJump<Bfloat16>);    \
  instantiate(KappaInMemory<Float32>); \
  instantiate(KappaInMemory<Float64>); \
  instantiate(KappaInMemory<Float16>); \
  instantiate(KappaInMemory<Bfloat16>);

// Queues out[i] = J(in[i]) for i < count on a CUDA stream. `in` and `out` are device memory, the same buffer or apart.
// Returns null, or the error of the launch as a text that needs no freeing.
template <class Site>
const char* launch_pass(void* stream, const typename Site::Bits* in, typename Site::Bits* out, std::uint64_t count,
                        const Site& site, bool has_cap);

}  // namespace jr
