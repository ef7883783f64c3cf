#include "draw_kappa.h"

#include <string>

#include "kappa.h"

namespace jr {
namespace {

class DrawKappa {
 public:
  explicit DrawKappa(const Runtime& runtime) : runtime_(runtime) {}

  const ort::Api* api() const { return runtime_.api; }

  ort::Status* initialize(const ort::KernelInfo* info) {
    node_ = describe_node(api(), info, "DrawKappa");
    const bool has_low = read_float(api(), info, "low", &low_);
    const bool has_high = read_float(api(), info, "high", &high_);
    std::string wrong;
    if (!has_low || !has_high) {
      wrong = std::string(has_low ? "high" : "low") + " is missing, expected the float attributes low and high";
    } else {
      wrong = complain_about_range(low_, high_, "low", "high");
    }
    return wrong.empty() ? nullptr : fail(api(), ort::kInvalidArgument, node_ + ": " + wrong);
  }

  ort::Status* compute(ort::KernelContext* context) const {
    ort::Value* output = nullptr;
    void* data = nullptr;
    ort::Status* status = api()->KernelContext_GetOutput(context, 0, nullptr, 0, &output);
    if (status == nullptr) status = api()->GetTensorMutableData(output, &data);
    if (status != nullptr) return status;
    if (draw_uniform(low_, high_, static_cast<float*>(data))) return nullptr;
    return fail(api(), ort::kFail, node_ + ": the operating system gives no random numbers");
  }

 private:
  const Runtime& runtime_;
  std::string node_;
  float low_ = 0;
  float high_ = 0;
};

ort::Status* infer_scalar(const ort::CustomOp* op, ort::ShapeInferContext* context) {
  const ort::Api* api = static_cast<const OpEntry*>(op)->runtime->api;
  ort::TensorTypeAndShapeInfo* info = nullptr;
  ort::Status* status = api->CreateTensorTypeAndShapeInfo(&info);
  if (status == nullptr) status = api->SetTensorElementType(info, ort::kFloat);
  if (status == nullptr) status = api->SetDimensions(info, nullptr, 0);
  if (status == nullptr) status = api->ShapeInferContext_SetOutputTypeShape(context, 0, info);
  if (info != nullptr) api->ReleaseTensorTypeAndShapeInfo(info);
  if (status != nullptr) api->ReleaseStatus(status);  // an unknown shape stays unknown, the node still runs
  return nullptr;
}

}  // namespace

OpEntry draw_kappa_entry(const Runtime& runtime) {
  OpEntry entry = kernel_entry<DrawKappa>(runtime, nullptr);
  entry.GetName = [](const ort::CustomOp*) { return "DrawKappa"; };
  entry.GetInputType = [](const ort::CustomOp*, std::size_t) { return ort::kFloat; };
  entry.GetInputTypeCount = [](const ort::CustomOp*) { return std::size_t{0}; };
  entry.GetOutputType = [](const ort::CustomOp*, std::size_t) { return ort::kFloat; };
  entry.GetInputCharacteristic = [](const ort::CustomOp*, std::size_t) { return ort::kRequired; };
  entry.InferOutputShapeFn = infer_scalar;
  return entry;
}

}  // namespace jr
