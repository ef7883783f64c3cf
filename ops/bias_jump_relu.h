// The operator jr_onnx::BiasJumpRelu for one element type, without the pass itself:
//
//     Y = J((X + bias) + residual)      bias (C) along an axis of X, residual optional and of X's shape
//
// It stands behind a Conv whose bias was taken out. Every sum is rounded to the element type, so Y is bit for bit what
// Add, Add and JumpRelu give, with one pass over memory instead of two or three.
#pragma once

#include "channels.h"
#include "jump_relu_op.h"

namespace jr {

// What one run works on. `residual` is null where the node has none.
struct BiasOperands {
  Buffers buffers;
  const void* bias = nullptr;
  const void* residual = nullptr;
  Channels shape{};
  KappaInput kappa;
};

constexpr std::size_t kBiasKappaIndex = 3;

// Opens the inputs and the output, and holds the shapes against each other.
ort::Status* open_bias_operands(const Runtime& runtime, ort::KernelContext* context, const std::string& node,
                                std::int64_t axis, bool has_residual, bool has_kappa, BiasOperands* out);

template <class E>
class BiasJumpReluKernel : public JumpReluKernel<E> {
 public:
  explicit BiasJumpReluKernel(const Runtime& runtime) : JumpReluKernel<E>(runtime, "BiasJumpRelu", kBiasKappaIndex) {}

  // Reads the attributes; an error names the node.
  ort::Status* initialize(const ort::KernelInfo* info) {
    ort::Status* status = JumpReluKernel<E>::initialize(info);
    if (status != nullptr) return status;
    const ort::Api* api = this->runtime().api;
    has_residual_ = has_input(api, info, 2);
    if (!read_integer(api, info, "axis", &axis_)) axis_ = 1;
    return this->refuse_channel_block();
  }

 protected:
  ort::Status* open(ort::KernelContext* context, BiasOperands* out) const {
    return open_bias_operands(this->runtime(), context, this->node(), axis_, has_residual_, this->has_kappa_input(),
                              out);
  }

 private:
  bool has_residual_ = false;
  std::int64_t axis_ = 1;
};

// Builds the entry of the operator for a kernel class.
template <class Kernel>
OpEntry bias_jump_relu_entry(const Runtime& runtime, const char* provider) {
  OpEntry entry = kernel_entry<Kernel>(runtime, provider);
  entry.GetName = [](const ort::CustomOp*) { return "BiasJumpRelu"; };
  entry.GetInputType = [](const ort::CustomOp*, std::size_t index) {
    return index == 3 ? ort::kFloat : Kernel::kElementType;
  };
  entry.GetInputTypeCount = [](const ort::CustomOp*) { return std::size_t{4}; };
  entry.GetOutputType = [](const ort::CustomOp*, std::size_t) { return Kernel::kElementType; };
  entry.GetInputCharacteristic = [](const ort::CustomOp*, std::size_t index) {
    return index < 2 ? ort::kRequired : ort::kOptional;
  };
  entry.InferOutputShapeFn = infer_same_shape;
  entry.GetMayInplace = reuse_first_input;
  entry.ReleaseMayInplace = release_reuse;
  return entry;
}

// Appends the operator of every element type for the CPU provider.
void add_cpu_bias_entries(const Runtime& runtime, std::vector<OpEntry>* out);

}  // namespace jr
