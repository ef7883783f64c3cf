#include "bias_jump_relu.h"

namespace jr {
namespace {

bool same(const Shape& a, const Shape& b) {
  if (a.rank != b.rank) return false;
  for (std::size_t i = 0; i < a.rank; ++i) {
    if (a.dims[i] != b.dims[i]) return false;
  }
  return true;
}

// The CPU has no need of the fused pass; this one lets a file made for CUDA run there, element by element.
template <class E, ort::ElementType kType>
class CpuKernel : public BiasJumpReluKernel<E> {
 public:
  using Bits = typename E::Bits;
  static constexpr ort::ElementType kElementType = kType;

  explicit CpuKernel(const Runtime& runtime) : BiasJumpReluKernel<E>(runtime) {}

  const ort::Api* api() const { return this->runtime().api; }

  ort::Status* compute(ort::KernelContext* context) const {
    BiasOperands operands;
    ort::Status* status = this->open(context, &operands);
    if (status != nullptr) return status;
    std::vector<Bits> offsets;  // of all channels, or of one jump
    if (operands.kappa.per_channel()) {
      status = this->offsets_of_run(operands.kappa, &offsets);
    } else {
      Jump<Bits> jump{};
      status = this->jump_of_run(operands.kappa, &jump);
      offsets.assign(1, jump.offset);
    }
    if (status != nullptr) return status;
    if (this->has_cap()) {
      pass<true>(operands, offsets, this->fixed().cap);
    } else {
      pass<false>(operands, offsets, this->fixed().cap);
    }
    return nullptr;
  }

 private:
  template <bool kHasCap>
  static void pass(const BiasOperands& operands, const std::vector<Bits>& offsets, Bits cap) {
    const auto* in = static_cast<const Bits*>(operands.buffers.in);
    const auto* bias = static_cast<const Bits*>(operands.bias);
    const auto* residual = static_cast<const Bits*>(operands.residual);
    auto* out = static_cast<Bits*>(operands.buffers.out);
    const Channels& shape = operands.shape;
    for (std::uint64_t begin = 0; begin < shape.count; begin += shape.inner) {
      const std::uint64_t channel = begin / shape.inner % shape.channels;
      const Bits own = bias[channel];
      const Jump<Bits> jump = jump_at(offsets[offsets.size() == 1 ? 0 : channel], E::kInfinity, cap);
      for (std::uint64_t i = begin; i < begin + shape.inner; ++i) {
        const Bits z = E::add(in[i], own);
        out[i] = jump_relu<kHasCap>(residual == nullptr ? z : E::add(z, residual[i]), jump);
      }
    }
  }
};

}  // namespace

ort::Status* open_bias_operands(const Runtime& runtime, ort::KernelContext* context, const std::string& node,
                                std::int64_t axis, bool has_residual, bool has_kappa, BiasOperands* out) {
  std::vector<std::int64_t> storage[3];
  Shape shape, bias, residual;
  ort::Status* status = find_input(runtime, context, 0, &storage[0], &shape, &out->buffers.in);
  if (status == nullptr) status = find_input(runtime, context, 1, &storage[1], &bias, &out->bias);
  if (status == nullptr && has_residual) {
    status = find_input(runtime, context, 2, &storage[2], &residual, &out->residual);
  }
  if (status != nullptr) return status;
  const auto rank = static_cast<std::int64_t>(shape.rank);
  const std::int64_t at = axis < 0 ? axis + rank : axis;
  if (at < 0 || at >= rank) {
    return fail(runtime.api, ort::kInvalidArgument,
                node + ": axis is " + std::to_string(axis) + ", the input has the shape " + describe(shape));
  }
  if (bias.rank != 1 || bias.dims[0] != shape.dims[at]) {
    return fail(runtime.api, ort::kInvalidArgument,
                node + ": the bias has the shape " + describe(bias) + ", expected one element for each of the " +
                    std::to_string(shape.dims[at]) + " channels of " + describe(shape));
  }
  if (has_residual && !same(shape, residual)) {
    return fail(runtime.api, ort::kInvalidArgument,
                node + ": the residual has the shape " + describe(residual) + ", expected that of the input, " +
                    describe(shape));
  }
  status = open_output(runtime, context, shape, &out->buffers);
  out->shape = {out->buffers.count, 1, static_cast<std::uint64_t>(shape.dims[at])};
  for (std::int64_t i = at + 1; i < rank; ++i) out->shape.inner *= static_cast<std::uint64_t>(shape.dims[i]);
  if (status != nullptr || !has_kappa) return status;
  status = find_kappa_input(runtime, context, kBiasKappaIndex, node, shape, &out->kappa);
  const Channels& kappa = out->kappa.layout;
  if (status != nullptr || !out->kappa.per_channel() || kappa.inner == out->shape.inner) return status;
  return fail(runtime.api, ort::kInvalidArgument,
              node + ": the kappa input lies along another axis than the bias, which lies along axis " +
                  std::to_string(at) + " of " + describe(shape));
}

void add_cpu_bias_entries(const Runtime& runtime, std::vector<OpEntry>* out) {
  out->push_back(bias_jump_relu_entry<CpuKernel<Float32, ort::kFloat>>(runtime, nullptr));
  out->push_back(bias_jump_relu_entry<CpuKernel<Float64, ort::kDouble>>(runtime, nullptr));
  out->push_back(bias_jump_relu_entry<CpuKernel<Float16, ort::kFloat16>>(runtime, nullptr));
  out->push_back(bias_jump_relu_entry<CpuKernel<Bfloat16, ort::kBfloat16>>(runtime, nullptr));
}

}  // namespace jr
