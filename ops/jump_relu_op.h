// The operator jr_onnx::JumpRelu for one element type, without the pass itself: attributes, shapes, buffers, kappa.
//
// A back end (CPU, CUDA) derives its kernel from `JumpReluKernel` and names it in `jump_relu_entry`. Everything that
// does not change between runs is settled when the kernel is created; a run of a plain node makes five calls into
// ONNX Runtime (input, its shape, output, two data pointers).
#pragma once

#include <climits>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "channels.h"
#include "jump_relu.h"
#include "kappa.h"
#include "op_entry.h"
#include "runtime.h"

namespace jr {

// The buffers of one run. `in` and `out` are the same where ONNX Runtime reuses the input's buffer.
struct Buffers {
  const void* in = nullptr;
  void* out = nullptr;
  std::size_t count = 0;
};

// A tensor's shape; `dims` may point into storage that came along.
struct Shape {
  const std::int64_t* dims = nullptr;
  std::size_t rank = 0;
};

std::size_t element_count(const Shape& shape);

// Finds an input's data, in the memory of the node's provider, and its shape. `*data` is null where the optional input is
// not there.
ort::Status* find_input(const Runtime& runtime, const ort::KernelContext* context, std::size_t index,
                        std::vector<std::int64_t>* storage, Shape* shape, const void** data);

// Opens output 0 with a shape.
ort::Status* open_output(const Runtime& runtime, ort::KernelContext* context, const Shape& shape, Buffers* out);

// "(2, 3)".
std::string describe(const Shape& shape);

// The kappa input, in the memory of the node's provider: one float, or one for each channel of X.
struct KappaInput {
  const float* data = nullptr;  // null where the node has no such input
  Channels layout;              // of X; one channel where there is one float

  bool per_channel() const { return layout.channels > 1; }
};

// Finds the kappa input. One float may have any shape; others broadcast over X along one axis of it: (C, 1, 1) over
// (N, C, H, W), or (C) over (N, C).
ort::Status* find_kappa_input(const Runtime& runtime, const ort::KernelContext* context, std::size_t index,
                              const std::string& node, const Shape& x, KappaInput* out);

// Opens input 0, the kappa input where the node has one (at `kappa_index`, else 0), and output 0.
ort::Status* open_buffers(const Runtime& runtime, ort::KernelContext* context, std::size_t kappa_index,
                          const std::string& node, Buffers* out, KappaInput* kappa);

// Whether the node has an input of this index; an omitted optional input has an empty name.
bool has_input(const ort::Api* api, const ort::KernelInfo* info, std::size_t index);

template <class E>
class JumpReluKernel {
 public:
  using Element = E;
  using Bits = typename E::Bits;

  explicit JumpReluKernel(const Runtime& runtime, const char* op_type = "JumpRelu", std::size_t kappa_index = 1)
      : runtime_(runtime), op_type_(op_type), kappa_index_(kappa_index) {}

  // Reads the attributes; an error names the node.
  ort::Status* initialize(const ort::KernelInfo* info) {
    const ort::Api* api = runtime_.api;
    node_ = describe_node(api, info, op_type_);
    has_kappa_input_ = has_input(api, info, kappa_index_);
    std::string wrong = read_attributes(api, info, has_kappa_input_, &attributes_);
    if (wrong.empty() && attributes_.has_range) wrong = complain_about_overflow(attributes_.high, "kappa_high");
    if (wrong.empty() && attributes_.has_kappa) wrong = complain_about_overflow(attributes_.kappa, "kappa");
    if (!wrong.empty()) return fail(api, ort::kInvalidArgument, node_ + ": " + wrong);
    fixed_ = jump_of(attributes_.kappa);
    return nullptr;
  }

 protected:
  bool has_cap() const { return attributes_.has_cap; }
  bool has_kappa_input() const { return has_kappa_input_; }
  const JumpAttributes& attributes() const { return attributes_; }
  const Jump<Bits>& fixed() const { return fixed_; }
  const Runtime& runtime() const { return runtime_; }
  const std::string& node() const { return node_; }

  ort::Status* open(ort::KernelContext* context, Buffers* out, KappaInput* kappa) const {
    return open_buffers(runtime_, context, has_kappa_input_ ? kappa_index_ : 0, node_, out, kappa);
  }

  // The error of a kernel without blocks of channels, if the node has them; ignored, they would be misread.
  ort::Status* refuse_channel_block() const {
    if (attributes_.channel_block == 0) return nullptr;
    return fail(runtime_.api, ort::kInvalidArgument,
                node_ + ": channel_block is " + std::to_string(attributes_.channel_block) +
                    ", and only JumpRelu on the CPU knows blocks of channels");
  }

  // The constants of this run: fixed, read from the kappa input, or drawn; for providers in CPU memory.
  ort::Status* jump_of_run(const KappaInput& input, Jump<Bits>* out) const {
    *out = fixed_;
    float kappa = 0;
    if (input.data != nullptr) {
      kappa = *input.data;
      std::string wrong = complain_about_kappa(kappa, "the kappa input");
      if (wrong.empty()) wrong = complain_about_overflow(kappa, "the kappa input");
      if (!wrong.empty()) return fail(runtime_.api, ort::kInvalidArgument, node_ + ": " + wrong);
    } else if (!attributes_.has_range) {
      return nullptr;
    } else if (!draw_uniform(attributes_.low, attributes_.high, &kappa)) {
      return fail(runtime_.api, ort::kFail, node_ + ": the operating system gives no random numbers");
    }
    *out = jump_of(kappa);
    return nullptr;
  }

  // The offsets of the jumps of all channels; for providers in CPU memory.
  ort::Status* offsets_of_run(const KappaInput& input, std::vector<Bits>* out) const {
    const std::uint64_t channels = input.layout.channels;
    out->resize(channels);
    bool valid = true;
    Bits* at = out->data();
    for (std::uint64_t channel = 0; channel < channels; ++channel) {
      const float kappa = without_sign_of_zero(input.data[channel]);
      const auto bits = bits_as<std::int32_t>(kappa);
      // Tested as integers, for a thread that flushes denormals to zero takes a negative one for 0.
      const bool finite = bits >= 0 && bits < Float32::kInfinity;
      const Bits rounded = finite ? E::round(kappa) : E::kInfinity;
      valid &= rounded < E::kInfinity;
      *at++ = offset_of(rounded);
    }
    return valid ? nullptr : refuse_channels(input);
  }

 private:
  ort::Status* refuse_channels(const KappaInput& input) const {
    std::uint64_t channel = 0;
    std::string wrong;
    for (; channel < input.layout.channels && wrong.empty(); ++channel) {
      const std::string name = "the kappa input of channel " + std::to_string(channel);
      wrong = complain_about_kappa(input.data[channel], name.c_str());
      if (wrong.empty()) wrong = complain_about_overflow(input.data[channel], name.c_str());
    }
    return fail(runtime_.api, ort::kInvalidArgument, node_ + ": " + wrong);
  }

  Jump<Bits> jump_of(float kappa) const {
    const Bits cap = attributes_.has_cap ? E::round(without_sign_of_zero(attributes_.cap)) : E::kInfinity;
    return make_jump<Bits>(E::round(without_sign_of_zero(kappa)), E::kInfinity, cap);
  }

  static std::string complain_about_overflow(float kappa, const char* name) {
    if (E::round(without_sign_of_zero(kappa)) < E::kInfinity) return {};
    return std::string(name) + " overflows " + E::kName + ", the type of the input";
  }

  const Runtime& runtime_;
  const char* op_type_;
  std::size_t kappa_index_;
  std::string node_;
  JumpAttributes attributes_;
  bool has_kappa_input_ = false;
  Jump<Bits> fixed_{};
};

ort::Status* infer_same_shape(const ort::CustomOp* op, ort::ShapeInferContext* context);
std::size_t reuse_first_input(int** input_index, int** output_index);
void release_reuse(int* input_index, int* output_index);

// Builds the entry of the operator for a kernel class: `Kernel(runtime)`, `initialize(info)`, `compute(context)`.
template <class Kernel>
OpEntry jump_relu_entry(const Runtime& runtime, const char* provider) {
  OpEntry entry = kernel_entry<Kernel>(runtime, provider);
  entry.GetName = [](const ort::CustomOp*) { return "JumpRelu"; };
  entry.GetInputType = [](const ort::CustomOp*, std::size_t index) {
    return index == 0 ? Kernel::kElementType : ort::kFloat;
  };
  entry.GetInputTypeCount = [](const ort::CustomOp*) { return std::size_t{2}; };
  entry.GetOutputType = [](const ort::CustomOp*, std::size_t) { return Kernel::kElementType; };
  entry.GetInputCharacteristic = [](const ort::CustomOp*, std::size_t index) {
    return index == 0 ? ort::kRequired : ort::kOptional;
  };
  entry.InferOutputShapeFn = infer_same_shape;
  entry.GetMayInplace = reuse_first_input;
  entry.ReleaseMayInplace = release_reuse;
  return entry;
}

}  // namespace jr
