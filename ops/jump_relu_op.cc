#include "jump_relu_op.h"

#include <atomic>

namespace jr {
namespace {

// Copies the shape into `storage`: what a runtime older than kShapeReferenceApi offers.
ort::Status* copy_shape(const ort::Api* api, const ort::Value* value, std::vector<std::int64_t>* storage) {
  ort::TensorTypeAndShapeInfo* info = nullptr;
  ort::Status* status = api->GetTensorTypeAndShape(value, &info);
  if (status != nullptr) return status;
  std::size_t rank = 0;
  status = api->GetDimensionsCount(info, &rank);
  if (status == nullptr) {
    storage->resize(rank);
    status = api->GetDimensions(info, storage->data(), rank);
  }
  api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

ort::Status* read_shape(const Runtime& runtime, const ort::Value* value, std::vector<std::int64_t>* storage,
                        Shape* out) {
  if (runtime.has_shape_reference) {
    int type = 0;
    return runtime.api->GetTensorElementTypeAndShapeDataReference(value, &type, &out->dims, &out->rank);
  }
  ort::Status* status = copy_shape(runtime.api, value, storage);
  *out = {storage->data(), storage->size()};
  return status;
}

ort::Status* data_of(const Runtime& runtime, const ort::Value* value, void** out) {
  // The C interface has one accessor, for mutable data; the input is only read through it.
  return runtime.api->GetTensorMutableData(const_cast<ort::Value*>(value), out);
}

// Finds the one axis of X along which values of this shape lie; false where there is none.
bool find_channels(const Shape& values, const Shape& x, Channels* out) {
  const std::size_t count = element_count(values);
  std::size_t behind = 0;  // axes of the values behind the one that is not of size 1
  while (behind < values.rank && values.dims[values.rank - 1 - behind] == 1) ++behind;
  if (values.rank > x.rank || behind == values.rank) return false;
  const auto channels = static_cast<std::size_t>(values.dims[values.rank - 1 - behind]);
  if (channels != count || x.dims[x.rank - 1 - behind] != values.dims[values.rank - 1 - behind]) return false;
  *out = {element_count(x), 1, channels};
  for (std::size_t i = x.rank - behind; i < x.rank; ++i) out->inner *= static_cast<std::uint64_t>(x.dims[i]);
  return true;
}

}  // namespace

ort::Status* open_buffers(const Runtime& runtime, ort::KernelContext* context, std::size_t kappa_index,
                          const std::string& node, Buffers* out, KappaInput* kappa) {
  std::vector<std::int64_t> storage;
  Shape shape;
  ort::Status* status = find_input(runtime, context, 0, &storage, &shape, &out->in);
  if (status == nullptr && kappa_index != 0) {
    status = find_kappa_input(runtime, context, kappa_index, node, shape, kappa);
  }
  return status != nullptr ? status : open_output(runtime, context, shape, out);
}

std::string describe(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.rank; ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape.dims[i]);
  return text + ")";
}

ort::Status* open_output(const Runtime& runtime, ort::KernelContext* context, const Shape& shape, Buffers* out) {
  ort::Value* output = nullptr;
  ort::Status* status = runtime.api->KernelContext_GetOutput(context, 0, shape.dims, shape.rank, &output);
  if (status == nullptr) status = data_of(runtime, output, &out->out);
  out->count = element_count(shape);
  return status;
}

std::size_t element_count(const Shape& shape) {
  std::size_t count = 1;
  for (std::size_t i = 0; i < shape.rank; ++i) count *= static_cast<std::size_t>(shape.dims[i]);
  return count;
}

ort::Status* find_input(const Runtime& runtime, const ort::KernelContext* context, std::size_t index,
                        std::vector<std::int64_t>* storage, Shape* shape, const void** data) {
  *data = nullptr;
  const ort::Value* value = nullptr;
  ort::Status* status = runtime.api->KernelContext_GetInput(context, index, &value);
  if (status != nullptr || value == nullptr) return status;
  status = read_shape(runtime, value, storage, shape);
  void* found = nullptr;
  if (status == nullptr) status = data_of(runtime, value, &found);
  *data = found;
  return status;
}

ort::Status* find_kappa_input(const Runtime& runtime, const ort::KernelContext* context, std::size_t index,
                              const std::string& node, const Shape& x, KappaInput* out) {
  std::vector<std::int64_t> storage;
  Shape shape;
  const void* data = nullptr;
  ort::Status* status = find_input(runtime, context, index, &storage, &shape, &data);
  if (status != nullptr) return status;
  if (data == nullptr) return fail(runtime.api, ort::kInvalidArgument, node + ": the kappa input has no value");
  out->data = static_cast<const float*>(data);
  out->layout = {element_count(x), 1, 1};
  if (element_count(shape) == 1 || find_channels(shape, x, &out->layout)) return nullptr;
  return fail(runtime.api, ort::kInvalidArgument,
              node + ": the kappa input has the shape " + describe(shape) +
                  ", expected one float, or one for each channel in a shape that broadcasts over that of the input, " +
                  describe(x));
}

bool has_input(const ort::Api* api, const ort::KernelInfo* info, std::size_t index) {
  std::size_t count = 0;
  ort::Status* status = api->KernelInfo_GetInputCount(info, &count);
  std::size_t size = 0;
  if (status == nullptr && index < count) status = api->KernelInfo_GetInputName(info, index, nullptr, &size);
  if (status != nullptr) api->ReleaseStatus(status);
  return size > 1;  // the size counts the terminator
}

// Returns a symbol that no other dimension has. A model's own symbols do not look like this.
std::string fresh_symbol() {
  static std::atomic<std::uint64_t> count{0};
  return "jr_onnx.dim." + std::to_string(count.fetch_add(1, std::memory_order_relaxed));
}

// Gives a symbol to every dimension that is neither a number nor a symbol; `known` tells whether there is a shape.
// Without a symbol such a dimension would be handed on as the number -1, and a missing shape, which looks like rank
// 0, as a scalar; ONNX Runtime then refuses the nodes behind. So a real scalar stays unknown.
ort::Status* name_unknown_dimensions(const ort::Api* api, ort::TensorTypeAndShapeInfo* info, bool* known) {
  std::size_t rank = 0;
  ort::Status* status = api->GetDimensionsCount(info, &rank);
  if (status != nullptr || rank == 0) return status;
  *known = true;
  std::vector<std::int64_t> sizes(rank);
  std::vector<const char*> names(rank, nullptr);
  status = api->GetDimensions(info, sizes.data(), rank);
  if (status == nullptr) status = api->GetSymbolicDimensions(info, names.data(), rank);
  if (status != nullptr) return status;
  std::vector<std::string> symbols(rank);
  bool changed = false;
  for (std::size_t i = 0; i < rank; ++i) {
    if (names[i] != nullptr) symbols[i] = names[i];
    if (sizes[i] >= 0 || !symbols[i].empty()) continue;
    symbols[i] = fresh_symbol();
    changed = true;
  }
  if (!changed) return nullptr;
  for (std::size_t i = 0; i < rank; ++i) names[i] = symbols[i].c_str();
  return api->SetSymbolicDimensions(info, names.data(), rank);
}

// The shape object of the input goes to the output, as Relu's does: rebuilt from its dimensions, a symbolic one would
// be refused, and without an inferred shape ONNX Runtime neither works in place nor fuses what stands behind. The
// object is the context's own copy, made for this call.
ort::Status* infer_same_shape(const ort::CustomOp* op, ort::ShapeInferContext* context) {
  const ort::Api* api = static_cast<const OpEntry*>(op)->runtime->api;
  ort::Status* status = guarded(api, [&] {
    ort::TensorTypeAndShapeInfo* info = nullptr;
    bool known = false;
    ort::Status* failed = api->ShapeInferContext_GetInputTypeShape(context, 0, &info);
    if (failed == nullptr && info != nullptr) failed = name_unknown_dimensions(api, info, &known);
    if (failed == nullptr && known) failed = api->ShapeInferContext_SetOutputTypeShape(context, 0, info);
    return failed;
  });
  if (status != nullptr) api->ReleaseStatus(status);  // an unknown shape stays unknown, the node still runs
  return nullptr;
}

std::size_t reuse_first_input(int** input_index, int** output_index) {
  *input_index = new (std::nothrow) int(0);
  *output_index = new (std::nothrow) int(0);
  if (*input_index != nullptr && *output_index != nullptr) return 1;
  release_reuse(*input_index, *output_index);
  *input_index = *output_index = nullptr;
  return 0;
}

void release_reuse(int* input_index, int* output_index) {
  delete input_index;
  delete output_index;
}

}  // namespace jr
