#include "draw_kappa.h"

#include "kappa.h"

namespace jr {
namespace {

class CpuDrawKappa : public DrawKappaKernel {
 public:
  explicit CpuDrawKappa(const Runtime& runtime) : DrawKappaKernel(runtime) {}

  ort::Status* compute(ort::KernelContext* context) const {
    float* out = nullptr;
    ort::Status* status = open_output(context, &out);
    if (status != nullptr) return status;
    if (draw_uniform(low(), high(), out)) return nullptr;
    return fail(api(), ort::kFail, node() + ": the operating system gives no random numbers");
  }
};

}  // namespace

ort::Status* DrawKappaKernel::initialize(const ort::KernelInfo* info) {
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

ort::Status* DrawKappaKernel::open_output(ort::KernelContext* context, float** out) const {
  ort::Value* output = nullptr;
  void* data = nullptr;
  ort::Status* status = api()->KernelContext_GetOutput(context, 0, nullptr, 0, &output);
  if (status == nullptr) status = api()->GetTensorMutableData(output, &data);
  *out = static_cast<float*>(data);
  return status;
}

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

OpEntry cpu_draw_kappa_entry(const Runtime& runtime) { return draw_kappa_entry<CpuDrawKappa>(runtime, nullptr); }

}  // namespace jr
