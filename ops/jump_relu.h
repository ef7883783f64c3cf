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
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define JR_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define JR_HOST_DEVICE inline __attribute__((always_inline))
#else
#define JR_HOST_DEVICE inline
#endif

namespace jr {

// The constants of one site. `Bits` is the signed integer of the element's width.
template <class Bits>
struct Jump {
  Bits offset;  // moves bits(kappa) + 1 to the smallest integer, so that one signed comparison tests both ends
  Bits limit;   // where +inf lands after that move
  Bits cap;     // read only where there is a cap
};

template <class Bits>
JR_HOST_DEVICE Jump<Bits> make_jump(Bits kappa, Bits infinity, Bits cap) {
  using Unsigned = std::make_unsigned_t<Bits>;
  const Unsigned sign = static_cast<Unsigned>(Unsigned{1} << (8 * sizeof(Bits) - 1));
  const Unsigned first = static_cast<Unsigned>(static_cast<Unsigned>(kappa) + 1u);
  const Unsigned offset = static_cast<Unsigned>(sign - first);
  return {static_cast<Bits>(offset), static_cast<Bits>(static_cast<Unsigned>(static_cast<Unsigned>(infinity) + offset)),
          cap};
}

template <bool kHasCap, class Bits>
JR_HOST_DEVICE Bits jump_relu(Bits z, const Jump<Bits>& jump) {
  using Unsigned = std::make_unsigned_t<Bits>;
  const Bits moved = static_cast<Bits>(static_cast<Unsigned>(static_cast<Unsigned>(z) + static_cast<Unsigned>(jump.offset)));
  const Bits kept = moved > jump.limit ? Bits{0} : z;
  return kHasCap && kept > jump.cap ? jump.cap : kept;
}

// Element types: the bits they are computed on, +inf, a NaN, and the rounding (to nearest, ties to even) of a float >= 0.
struct Float32 {
  using Bits = std::int32_t;
  static constexpr Bits kInfinity = 0x7F800000;
  static constexpr Bits kNan = 0x7FC00000;
  static constexpr const char* kName = "float";
  JR_HOST_DEVICE static Bits round(float value) {
    Bits bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
  }
};

struct Float64 {
  using Bits = std::int64_t;
  static constexpr Bits kInfinity = 0x7FF0000000000000;
  static constexpr Bits kNan = 0x7FF8000000000000;
  static constexpr const char* kName = "double";
  JR_HOST_DEVICE static Bits round(float value) {
    const double wide = value;
    Bits bits;
    std::memcpy(&bits, &wide, sizeof bits);
    return bits;
  }
};

struct Float16 {
  using Bits = std::int16_t;
  static constexpr Bits kInfinity = 0x7C00;
  static constexpr Bits kNan = 0x7E00;
  static constexpr const char* kName = "float16";
  JR_HOST_DEVICE static Bits round(float value) {
    const auto bits = static_cast<std::uint32_t>(Float32::round(value));
    const std::uint32_t exponent = bits >> 23;
    if (exponent < 102) return 0;  // below half of the smallest subnormal
    if (exponent < 113) {          // subnormal: a whole number of 2^-24
      const std::uint32_t mantissa = (bits & 0x7FFFFFu) | 0x800000u;
      const std::uint32_t shift = 126 - exponent;
      const std::uint32_t odd = (mantissa >> shift) & 1u;
      return static_cast<Bits>((mantissa + ((1u << (shift - 1)) - 1u) + odd) >> shift);
    }
    const std::uint32_t rounded = (bits + 0xFFFu + ((bits >> 13) & 1u)) >> 13;
    const std::uint32_t biased = rounded - (112u << 10);
    return biased >= 0x7C00u ? kInfinity : static_cast<Bits>(biased);
  }
};

struct Bfloat16 {
  using Bits = std::int16_t;
  static constexpr Bits kInfinity = 0x7F80;
  static constexpr Bits kNan = 0x7FC0;
  static constexpr const char* kName = "bfloat16";
  JR_HOST_DEVICE static Bits round(float value) {
    const auto bits = static_cast<std::uint32_t>(Float32::round(value));
    return static_cast<Bits>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  }
};

}  // namespace jr
