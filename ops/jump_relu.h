// The formula, once for every dtype and for both the CPU and the GPU.
//
//     J(z) = z if z > kappa else 0      kappa >= 0 and finite; NaN, -inf and -0 give +0
//     with a cap (ReLU6): min(J(z), cap)
//
// It is computed on bit patterns. The finite floats >= 0 and +inf are ordered like their bits read as integers, the
// negative ones have the sign bit, and NaN lies above +inf; so z is kept exactly if kappa < bits(z) <= bits(+inf).
// That costs one addition and one signed comparison, needs no conversion for float16 and bfloat16, and does not
// depend on whether the calling thread flushes denormals to zero.
#pragma once

#include <cstdint>
#include <type_traits>

#include "element.h"

namespace jr {

// The constants of one site. `Bits` is the signed integer of the element's width.
template <class Bits>
struct Jump {
  Bits offset;  // moves bits(kappa) + 1 to the smallest integer, so that one signed comparison tests both ends
  Bits limit;   // where +inf lands after that move
  Bits cap;     // read only where there is a cap
};

// The offset of the jump at kappa.
template <class Bits>
JR_HOST_DEVICE Bits offset_of(Bits kappa) {
  using Unsigned = std::make_unsigned_t<Bits>;
  const Unsigned sign = static_cast<Unsigned>(Unsigned{1} << (8 * sizeof(Bits) - 1));
  const Unsigned first = static_cast<Unsigned>(static_cast<Unsigned>(kappa) + 1u);
  return static_cast<Bits>(static_cast<Unsigned>(sign - first));
}

// The jump of an offset.
template <class Bits>
JR_HOST_DEVICE Jump<Bits> jump_at(Bits offset, Bits infinity, Bits cap) {
  using Unsigned = std::make_unsigned_t<Bits>;
  return {offset, static_cast<Bits>(static_cast<Unsigned>(static_cast<Unsigned>(infinity) + static_cast<Unsigned>(offset))),
          cap};
}

template <class Bits>
JR_HOST_DEVICE Jump<Bits> make_jump(Bits kappa, Bits infinity, Bits cap) {
  return jump_at(offset_of(kappa), infinity, cap);
}

template <bool kHasCap, class Bits>
JR_HOST_DEVICE Bits jump_relu(Bits z, const Jump<Bits>& jump) {
  using Unsigned = std::make_unsigned_t<Bits>;
  const Bits moved = static_cast<Bits>(static_cast<Unsigned>(static_cast<Unsigned>(z) + static_cast<Unsigned>(jump.offset)));
  const Bits kept = moved > jump.limit ? Bits{0} : z;
  return kHasCap && kept > jump.cap ? jump.cap : kept;
}

}  // namespace jr
