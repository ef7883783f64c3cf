// Every kernel over buffers of exactly the right size, for the sanitizers: prints "clean" and exits 0 if every element is
// what the formula says.
#include <cstdio>
#include <random>
#include <vector>

#include "bias_kernel.h"
#include "cuda_draw.h"
#include "cuda_kernel.h"
#include "cuda_runtime.h"

namespace {

template <class E>
bool check(std::size_t count, std::size_t shift, bool has_cap, bool in_memory, bool in_place, unsigned blocks) {
  using Bits = typename E::Bits;
  std::mt19937_64 random(count * 8 + shift);
  std::vector<Bits> source(count + shift), result(count + shift);
  for (Bits& bits : source) bits = static_cast<Bits>(random());
  const float kappa = 0.25f;
  const Bits cap = has_cap ? E::round(6.0f) : E::kInfinity;
  const auto jump = jr::make_jump<Bits>(E::round(kappa), E::kInfinity, cap);
  std::vector<Bits> expected(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Bits z = source[shift + i];
    expected[i] = has_cap ? jr::jump_relu<true>(z, jump) : jr::jump_relu<false>(z, jump);
  }
  emulated_cuda::forced_blocks = blocks;
  Bits* out = (in_place ? source : result).data() + shift;
  const char* error =
      in_memory ? jr::launch_pass(nullptr, source.data() + shift, out, count, jr::KappaInMemory<E>{&kappa, cap}, has_cap)
                : jr::launch_pass(nullptr, source.data() + shift, out, count, jr::FixedJump<E>{jump}, has_cap);
  emulated_cuda::forced_blocks = 0;
  return error == nullptr && std::equal(expected.begin(), expected.end(), out);
}

template <class E>
bool check_all() {
  for (const std::size_t count : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 1023, 1024, 1025, 4095, 4097, 8193}) {
    for (int form = 0; form < 16; ++form) {
      for (const unsigned blocks : {0u, 1u, 3u}) {
        if (!check<E>(count, form & 1, form & 2, form & 4, form & 8, blocks)) {
          std::fprintf(stderr, "%s: %zu elements, form %d, %u blocks: wrong\n", E::kName, count, form, blocks);
          return false;
        }
      }
    }
  }
  return true;
}

// Against the definition, element by element; the residual ends where its memory ends.
template <class E>
bool check_bias(std::uint64_t batch, std::uint64_t channels, std::uint64_t inner, std::size_t shift, bool with_residual) {
  using Bits = typename E::Bits;
  const jr::Channels shape{batch * channels * inner, inner, channels};
  std::mt19937_64 random(shape.count);
  std::vector<Bits> source(shape.count + shift), residual(shape.count + shift), bias(channels);
  for (auto* values : {&source, &residual, &bias}) {
    for (Bits& bits : *values) bits = E::round(static_cast<float>(random() % 1000) / 250.0f);
  }
  const auto jump = jr::make_jump<Bits>(E::round(2.0f), E::kInfinity, E::kInfinity);
  std::vector<Bits> expected(shape.count);
  for (std::size_t i = 0; i < shape.count; ++i) {
    Bits z = E::add(source[shift + i], bias[i / inner % channels]);
    if (with_residual) z = E::add(z, residual[shift + i]);
    expected[i] = jr::jump_relu<false>(z, jump);
  }
  Bits* in = source.data() + shift;
  const Bits* other = with_residual ? residual.data() + shift : nullptr;
  const char* error =
      jr::launch_bias_pass(nullptr, in, bias.data(), other, in, shape, jr::FixedJump<E>{jump});
  return error == nullptr && std::equal(expected.begin(), expected.end(), in);
}

template <class E>
bool check_all_biases() {
  for (const std::uint64_t inner : {1, 2, 3, 4, 7, 8, 9, 49, 64}) {
    for (const std::uint64_t channels : {1, 2, 3, 5, 8, 17}) {
      for (int form = 0; form < 4; ++form) {
        if (!check_bias<E>(3, channels, inner, form & 1, form & 2)) {
          std::fprintf(stderr, "%s: bias, inner %d, channels %d, form %d: wrong\n", E::kName, static_cast<int>(inner),
                       static_cast<int>(channels), form);
          return false;
        }
      }
    }
  }
  return true;
}

bool check_draws() {
  jr::DeviceDraw draw;
  if (draw.open() != nullptr) return false;
  for (int i = 0; i < 3000; ++i) {
    const float* slot = nullptr;
    if (draw.launch(nullptr, 0.25f, 0.5f, &slot) != nullptr || !(*slot >= 0.25f && *slot < 0.5f)) return false;
  }
  return true;
}

}  // namespace

int main() {
  const bool good = check_all<jr::Float32>() && check_all<jr::Float64>() && check_all<jr::Float16>() &&
                    check_all<jr::Bfloat16>() && check_draws() &&
                    check_all_biases<jr::Float32>() && check_all_biases<jr::Float64>() &&
                    check_all_biases<jr::Float16>() && check_all_biases<jr::Bfloat16>();
  if (good) std::puts("clean");
  return good ? 0 : 1;
}
