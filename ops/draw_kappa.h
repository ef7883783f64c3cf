// The operator jr_onnx::DrawKappa, without the draw itself: attributes, shape, output.
#pragma once

#include <string>

#include "op_entry.h"

namespace jr {

class DrawKappaKernel {
 public:
  explicit DrawKappaKernel(const Runtime& runtime) : runtime_(runtime) {}

  const ort::Api* api() const { return runtime_.api; }

  // Reads the attributes; an error names the node.
  ort::Status* initialize(const ort::KernelInfo* info);

 protected:
  // The scalar of this run, in the memory of the node's provider.
  ort::Status* open_output(ort::KernelContext* context, float** out) const;

  const std::string& node() const { return node_; }
  float low() const { return low_; }
  float high() const { return high_; }

 private:
  const Runtime& runtime_;
  std::string node_;
  float low_ = 0;
  float high_ = 0;
};

ort::Status* infer_scalar(const ort::CustomOp* op, ort::ShapeInferContext* context);

template <class Kernel>
OpEntry draw_kappa_entry(const Runtime& runtime, const char* provider) {
  OpEntry entry = kernel_entry<Kernel>(runtime, provider);
  entry.GetName = [](const ort::CustomOp*) { return "DrawKappa"; };
  entry.GetInputType = [](const ort::CustomOp*, std::size_t) { return ort::kFloat; };
  entry.GetInputTypeCount = [](const ort::CustomOp*) { return std::size_t{0}; };
  entry.GetOutputType = [](const ort::CustomOp*, std::size_t) { return ort::kFloat; };
  entry.GetInputCharacteristic = [](const ort::CustomOp*, std::size_t) { return ort::kRequired; };
  entry.InferOutputShapeFn = infer_scalar;
  return entry;
}

// For the CPU provider.
OpEntry cpu_draw_kappa_entry(const Runtime& runtime);

}  // namespace jr
