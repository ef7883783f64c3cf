// Element types, for the CPU and the GPU: the bits they are computed on, +inf, a NaN, the rounding (to nearest, ties to
// even) of a float >= 0, and the rounded sum of two elements.
//
// The sum of two float16 or bfloat16 is made in float and rounded once more, which gives what rounding the exact sum once
// gives: float has at least twice their digits and two more.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define JR_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define JR_HOST_DEVICE inline __attribute__((always_inline))
#else
#define JR_HOST_DEVICE inline
#endif

namespace jr {

template <class To, class From>
JR_HOST_DEVICE To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From), "the bits stay as they are");
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

// Turns -0 into +0, whose bits are the ones that comparisons of bits expect. Done on bits, for a sum with 0 would lose a
// subnormal number in a thread that flushes them to zero.
JR_HOST_DEVICE float without_sign_of_zero(float value) {
  return bits_as<std::uint32_t>(value) == 0x80000000u ? 0.0f : value;
}

struct Float32 {
  using Bits = std::int32_t;
  static constexpr Bits kInfinity = 0x7F800000;
  static constexpr Bits kNan = 0x7FC00000;
  static constexpr const char* kName = "float";
  JR_HOST_DEVICE static Bits round(float value) { return bits_as<Bits>(value); }
  JR_HOST_DEVICE static Bits add(Bits a, Bits b) { return bits_as<Bits>(bits_as<float>(a) + bits_as<float>(b)); }
};

struct Float64 {
  using Bits = std::int64_t;
  static constexpr Bits kInfinity = 0x7FF0000000000000;
  static constexpr Bits kNan = 0x7FF8000000000000;
  static constexpr const char* kName = "double";
  JR_HOST_DEVICE static Bits round(float value) { return bits_as<Bits>(static_cast<double>(value)); }
  JR_HOST_DEVICE static Bits add(Bits a, Bits b) { return bits_as<Bits>(bits_as<double>(a) + bits_as<double>(b)); }
};

// Rounds any float to a type of 16 bits.
template <class E>
JR_HOST_DEVICE std::int16_t narrowed(float value) {
  const auto bits = bits_as<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  const std::int16_t rounded = magnitude > 0x7F800000u ? E::kNan : E::round(bits_as<float>(magnitude));
  return static_cast<std::int16_t>(static_cast<std::uint16_t>(rounded) | static_cast<std::uint16_t>((bits >> 16) & 0x8000u));
}

struct Float16 {
  using Bits = std::int16_t;
  static constexpr Bits kInfinity = 0x7C00;
  static constexpr Bits kNan = 0x7E00;
  static constexpr const char* kName = "float16";
  JR_HOST_DEVICE static Bits round(float value) {
    const auto bits = bits_as<std::uint32_t>(value);
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
  JR_HOST_DEVICE static float widened(Bits bits) {
    const auto pattern = static_cast<std::uint32_t>(static_cast<std::uint16_t>(bits));
    const std::uint32_t sign = (pattern & 0x8000u) << 16;
    const std::uint32_t magnitude = pattern & 0x7FFFu;
    if (magnitude < 0x400u) {  // subnormal: a whole number of 2^-24
      return bits_as<float>(sign | bits_as<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f));
    }
    const std::uint32_t exponent = magnitude >= 0x7C00u ? 0x38000000u + 0x38000000u : 0x38000000u;
    return bits_as<float>(sign | ((magnitude << 13) + exponent));
  }
  JR_HOST_DEVICE static Bits add(Bits a, Bits b) {
#ifdef __CUDA_ARCH__
    const __half sum = __float2half_rn(__half2float(__ushort_as_half(static_cast<unsigned short>(a))) +
                                       __half2float(__ushort_as_half(static_cast<unsigned short>(b))));
    return static_cast<Bits>(__half_as_ushort(sum));
#else
    return narrowed<Float16>(widened(a) + widened(b));
#endif
  }
};

struct Bfloat16 {
  using Bits = std::int16_t;
  static constexpr Bits kInfinity = 0x7F80;
  static constexpr Bits kNan = 0x7FC0;
  static constexpr const char* kName = "bfloat16";
  JR_HOST_DEVICE static Bits round(float value) {
    const auto bits = bits_as<std::uint32_t>(value);
    return static_cast<Bits>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  }
  JR_HOST_DEVICE static float widened(Bits bits) {
    return bits_as<float>(static_cast<std::uint32_t>(static_cast<std::uint16_t>(bits)) << 16);
  }
  JR_HOST_DEVICE static Bits add(Bits a, Bits b) { return narrowed<Bfloat16>(widened(a) + widened(b)); }
};

}  // namespace jr
