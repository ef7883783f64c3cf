// The CUDA kernels behind a C interface, run thread by thread on the CPU.
#include "bias_kernel.h"
#include "cuda_draw.h"
#include "cuda_kernel.h"
#include "cuda_runtime.h"

namespace {

template <class E>
const char* pass(bool in_memory, bool has_cap, const float* kappa, float cap, const void* in, void* out,
                 std::uint64_t count) {
  using Bits = typename E::Bits;
  const auto* source = static_cast<const Bits*>(in);
  auto* target = static_cast<Bits*>(out);
  const Bits cap_bits = has_cap ? E::round(cap) : E::kInfinity;
  if (in_memory) return jr::launch_pass(nullptr, source, target, count, jr::KappaInMemory<E>{kappa, cap_bits}, has_cap);
  const jr::FixedJump<E> site{jr::make_jump<Bits>(E::round(*kappa), E::kInfinity, cap_bits)};
  return jr::launch_pass(nullptr, source, target, count, site, has_cap);
}

template <class E>
const char* bias_pass(bool in_memory, bool has_cap, const float* kappa, float cap, const void* in, const void* bias,
                      const void* residual, void* out, const jr::Channels& shape) {
  using Bits = typename E::Bits;
  const auto* source = static_cast<const Bits*>(in);
  const auto* biases = static_cast<const Bits*>(bias);
  const auto* other = static_cast<const Bits*>(residual);
  auto* target = static_cast<Bits*>(out);
  const Bits cap_bits = has_cap ? E::round(cap) : E::kInfinity;
  if (in_memory) {
    const jr::KappaInMemory<E> site{kappa, cap_bits};
    return jr::launch_bias_pass(nullptr, source, biases, other, target, shape, site);
  }
  const jr::FixedJump<E> site{jr::make_jump<Bits>(E::round(*kappa), E::kInfinity, cap_bits)};
  return jr::launch_bias_pass(nullptr, source, biases, other, target, shape, site);
}

// With a bias, the same kappas behind the bias.
template <class E>
const char* channel_pass(const float* kappa, float cap, const void* in, const void* bias, void* out,
                         const jr::Channels& shape) {
  using Bits = typename E::Bits;
  const jr::KappaPerChannel<E> site{kappa, E::round(cap)};
  const auto* source = static_cast<const Bits*>(in);
  auto* target = static_cast<Bits*>(out);
  if (bias == nullptr) return jr::launch_channel_pass<E>(nullptr, source, target, shape, site);
  return jr::launch_bias_pass(nullptr, source, static_cast<const Bits*>(bias), static_cast<const Bits*>(nullptr), target,
                              shape, site);
}

}  // namespace

extern "C" const char* jr_onnx_test_channel_pass(int type, const float* kappa, float cap, const void* in,
                                                 const void* bias, void* out, std::uint64_t count, std::uint64_t inner,
                                                 std::uint64_t channels) {
  const jr::Channels shape{count, inner, channels};
  switch (type) {
    case 0: return channel_pass<jr::Float32>(kappa, cap, in, bias, out, shape);
    case 1: return channel_pass<jr::Float64>(kappa, cap, in, bias, out, shape);
    case 2: return channel_pass<jr::Float16>(kappa, cap, in, bias, out, shape);
    default: return channel_pass<jr::Bfloat16>(kappa, cap, in, bias, out, shape);
  }
}

extern "C" const char* jr_onnx_test_bias_pass(int type, bool in_memory, bool has_cap, const float* kappa, float cap,
                                              const void* in, const void* bias, const void* residual, void* out,
                                              std::uint64_t count, std::uint64_t inner, std::uint64_t channels) {
  const jr::Channels shape{count, inner, channels};
  switch (type) {
    case 0: return bias_pass<jr::Float32>(in_memory, has_cap, kappa, cap, in, bias, residual, out, shape);
    case 1: return bias_pass<jr::Float64>(in_memory, has_cap, kappa, cap, in, bias, residual, out, shape);
    case 2: return bias_pass<jr::Float16>(in_memory, has_cap, kappa, cap, in, bias, residual, out, shape);
    default: return bias_pass<jr::Bfloat16>(in_memory, has_cap, kappa, cap, in, bias, residual, out, shape);
  }
}

extern "C" const char* jr_onnx_test_pass(int type, bool in_memory, bool has_cap, const float* kappa, float cap,
                                         const void* in, void* out, std::uint64_t count) {
  switch (type) {
    case 0: return pass<jr::Float32>(in_memory, has_cap, kappa, cap, in, out, count);
    case 1: return pass<jr::Float64>(in_memory, has_cap, kappa, cap, in, out, count);
    case 2: return pass<jr::Float16>(in_memory, has_cap, kappa, cap, in, out, count);
    default: return pass<jr::Bfloat16>(in_memory, has_cap, kappa, cap, in, out, count);
  }
}

extern "C" void jr_onnx_test_order(bool backwards, unsigned forced_blocks) {
  emulated_cuda::backwards = backwards;
  emulated_cuda::forced_blocks = forced_blocks;
}

extern "C" unsigned jr_onnx_test_last_blocks() { return emulated_cuda::last_blocks; }

// Draws `count` numbers, one launch each.
extern "C" const char* jr_onnx_test_draw(float low, float high, float* out, unsigned count) {
  jr::DeviceDraw draw;
  const char* error = draw.open();
  for (unsigned i = 0; i < count && error == nullptr; ++i) {
    const float* slot = nullptr;
    error = i % 2 == 0 ? draw.launch(nullptr, low, high, out + i) : draw.launch(nullptr, low, high, &slot);
    if (slot != nullptr) out[i] = *slot;
  }
  return error;
}

extern "C" void jr_onnx_test_chacha(const std::uint32_t* key, const std::uint32_t* position, std::uint32_t* out) {
  jr::ChaChaKey chacha_key;
  for (int i = 0; i < 8; ++i) chacha_key.word[i] = key[i];
  const std::uint32_t at[4] = {position[0], position[1], position[2], position[3]};
  std::uint32_t block[16];
  jr::chacha20_block(chacha_key, at, block);
  for (int i = 0; i < 16; ++i) out[i] = block[i];
}
