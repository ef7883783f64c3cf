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
  JR_HOST_DEVICE Bits apply(Bits z, std::uint32_t = 0) const {
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
    JR_HOST_DEVICE Bits apply(Bits z, std::uint32_t = 0) const {
      return valid ? jump_relu<kHasCap>(z, jump) : E::kNan;
    }
  };

  JR_HOST_DEVICE Ready ready() const {
    const float value = without_sign_of_zero(*kappa);
    const Bits rounded = E::round(value);
    return {make_jump<Bits>(rounded, E::kInfinity, cap), value >= 0 && rounded < E::kInfinity};
  }
};

// One kappa for each channel in device memory, read when the pass runs; an invalid one makes the results of its channel
// NaN.
template <class E>
struct KappaPerChannel {
  using Element = E;
  using Bits = typename E::Bits;
  const float* kappa;
  Bits cap;

  JR_HOST_DEVICE KappaPerChannel ready() const { return *this; }

  template <bool kHasCap>
  JR_HOST_DEVICE Bits apply(Bits z, std::uint32_t channel) const {
    return KappaInMemory<E>{kappa + channel, cap}.ready().template apply<kHasCap>(z);
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

#define JR_FOR_EACH_ELEMENT(instantiate) \
  instantiate(Float32);                   \
  instantiate(Float64);                   \
  instantiate(Float16);                   \
  instantiate(Bfloat16);

// Queues out[i] = J(in[i]) for i < count on a CUDA stream. `in` and `out` are device memory, the same buffer or apart.
// Returns null, or the error of the launch as a text that needs no freeing.
template <class Site>
const char* launch_pass(void* stream, const typename Site::Bits* in, typename Site::Bits* out, std::uint64_t count,
                        const Site& site, bool has_cap);

}  // namespace jr
