// The part of ONNX Runtime's C ABI that this library uses, declared here because the PyPI packages of ONNX Runtime
// carry no headers.
//
// OrtApi is a table of function pointers that only ever grows: a slot keeps its place and signature for good, and
// GetApi(v) promises the slots up to API version v. The gaps between the slots in use are named `reserved`. The
// assertions below pin every slot; `abi_check.cc` compares them with the real headers where those are installed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace jr::ort {

// Opaque objects of the runtime.
struct Status;
struct Value;
struct KernelInfo;
struct KernelContext;
struct ShapeInferContext;
struct TensorTypeAndShapeInfo;
struct SessionOptions;
struct CustomOpDomain;
struct CustomOp;

// API versions: the minor version of the ONNX Runtime release that brought them.
constexpr std::uint32_t kOldestApi = 1;
constexpr std::uint32_t kMinimumApi = 18;         // OrtCustomOp::GetMayInplace
constexpr std::uint32_t kShapeReferenceApi = 24;  // GetTensorElementTypeAndShapeDataReference

// OrtErrorCode
constexpr int kFail = 1;
constexpr int kInvalidArgument = 2;
constexpr int kNotImplemented = 9;

// ONNXTensorElementDataType
enum ElementType : int { kFloat = 1, kFloat16 = 10, kDouble = 11, kBfloat16 = 16 };

// OrtCustomOpInputOutputCharacteristic
enum Characteristic : int { kRequired = 0, kOptional = 1 };

// OrtMemType
enum MemoryType : int { kDefaultMemory = 0 };

// OrtApi
struct Api {
  Status* (*CreateStatus)(int code, const char* message);  // 0
  void* reserved_1[25];
  Status* (*CreateCustomOpDomain)(const char* domain, CustomOpDomain** out);            // 26
  Status* (*CustomOpDomain_Add)(CustomOpDomain* domain, const CustomOp* op);            // 27
  Status* (*AddCustomOpDomain)(SessionOptions* options, CustomOpDomain* domain);        // 28
  void* reserved_29[22];
  Status* (*GetTensorMutableData)(Value* value, void** out);  // 51
  void* reserved_52[5];
  Status* (*CreateTensorTypeAndShapeInfo)(TensorTypeAndShapeInfo** out);                                 // 57
  Status* (*SetTensorElementType)(TensorTypeAndShapeInfo* info, int type);                               // 58
  Status* (*SetDimensions)(TensorTypeAndShapeInfo* info, const std::int64_t* dims, std::size_t count);   // 59
  void* reserved_60[1];
  Status* (*GetDimensionsCount)(const TensorTypeAndShapeInfo* info, std::size_t* out);                   // 61
  Status* (*GetDimensions)(const TensorTypeAndShapeInfo* info, std::int64_t* dims, std::size_t count);   // 62
  Status* (*GetSymbolicDimensions)(const TensorTypeAndShapeInfo* info, const char** names, std::size_t count);  // 63
  void* reserved_64[1];
  Status* (*GetTensorTypeAndShape)(const Value* value, TensorTypeAndShapeInfo** out);  // 65
  void* reserved_66[19];
  Status* (*KernelInfoGetAttribute_float)(const KernelInfo* info, const char* name, float* out);  // 85
  Status* (*KernelInfoGetAttribute_int64)(const KernelInfo* info, const char* name, std::int64_t* out);  // 86
  void* reserved_87[3];
  Status* (*KernelContext_GetInput)(const KernelContext* context, std::size_t index, const Value** out);  // 90
  Status* (*KernelContext_GetOutput)(KernelContext* context, std::size_t index, const std::int64_t* dims,
                                     std::size_t count, Value** out);  // 91
  void* reserved_92[1];
  void (*ReleaseStatus)(Status* status);  // 93
  void* reserved_94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(TensorTypeAndShapeInfo* info);  // 99
  void* reserved_100[1];
  void (*ReleaseCustomOpDomain)(CustomOpDomain* domain);  // 101
  void* reserved_102[91];
  Status* (*KernelContext_GetGPUComputeStream)(const KernelContext* context, void** out);  // 193
  void* reserved_194[36];
  Status* (*KernelInfo_GetInputCount)(const KernelInfo* info, std::size_t* out);  // 230
  void* reserved_231[1];
  Status* (*KernelInfo_GetInputName)(const KernelInfo* info, std::size_t index, char* out, std::size_t* size);  // 232
  void* reserved_233[11];
  Status* (*KernelInfo_GetNodeName)(const KernelInfo* info, char* out, std::size_t* size);  // 244
  void* reserved_245[23];
  Status* (*ShapeInferContext_GetInputTypeShape)(const ShapeInferContext* context, std::size_t index,
                                                 TensorTypeAndShapeInfo** info);  // 268
  void* reserved_269[1];
  Status* (*ShapeInferContext_SetOutputTypeShape)(const ShapeInferContext* context, std::size_t index,
                                                  const TensorTypeAndShapeInfo* info);  // 270
  Status* (*SetSymbolicDimensions)(TensorTypeAndShapeInfo* info, const char** names, std::size_t count);  // 271
  void* reserved_272[2];
  Status* (*KernelContext_ParallelFor)(const KernelContext* context, void (*fn)(void*, std::size_t),
                                       std::size_t total, std::size_t num_batch, void* user_data);  // 274
  void* reserved_275[139];
  // Only from kShapeReferenceApi on; the table of an older runtime ends before it.
  Status* (*GetTensorElementTypeAndShapeDataReference)(const Value* value, int* type, const std::int64_t** dims,
                                                       std::size_t* count);  // 414
};

// OrtApiBase
struct ApiBase {
  const Api* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

// OrtCustomOp as of API version kMinimumApi; the runtime reads no field beyond `version`'s.
struct CustomOp {
  std::uint32_t version;
  void* (*CreateKernel)(const CustomOp* op, const Api* api, const KernelInfo* info);
  const char* (*GetName)(const CustomOp* op);
  const char* (*GetExecutionProviderType)(const CustomOp* op);
  ElementType (*GetInputType)(const CustomOp* op, std::size_t index);
  std::size_t (*GetInputTypeCount)(const CustomOp* op);
  ElementType (*GetOutputType)(const CustomOp* op, std::size_t index);
  std::size_t (*GetOutputTypeCount)(const CustomOp* op);
  void (*KernelCompute)(void* kernel, KernelContext* context);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const CustomOp* op, std::size_t index);
  Characteristic (*GetOutputCharacteristic)(const CustomOp* op, std::size_t index);
  MemoryType (*GetInputMemoryType)(const CustomOp* op, std::size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp* op);
  int (*GetVariadicInputHomogeneity)(const CustomOp* op);
  int (*GetVariadicOutputMinArity)(const CustomOp* op);
  int (*GetVariadicOutputHomogeneity)(const CustomOp* op);
  Status* (*CreateKernelV2)(const CustomOp* op, const Api* api, const KernelInfo* info, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext* context);
  Status* (*InferOutputShapeFn)(const CustomOp* op, ShapeInferContext* context);
  int (*GetStartVersion)(const CustomOp* op);
  int (*GetEndVersion)(const CustomOp* op);
  std::size_t (*GetMayInplace)(int** input_index, int** output_index);
  void (*ReleaseMayInplace)(int* input_index, int* output_index);
  std::size_t (*GetAliasMap)(int** input_index, int** output_index);
  void (*ReleaseAliasMap)(int* input_index, int* output_index);
};

#define JR_SLOT(member, slot) static_assert(offsetof(Api, member) == (slot) * sizeof(void*), #member)
JR_SLOT(CreateStatus, 0);
JR_SLOT(CreateCustomOpDomain, 26);
JR_SLOT(CustomOpDomain_Add, 27);
JR_SLOT(AddCustomOpDomain, 28);
JR_SLOT(GetTensorMutableData, 51);
JR_SLOT(CreateTensorTypeAndShapeInfo, 57);
JR_SLOT(SetTensorElementType, 58);
JR_SLOT(SetDimensions, 59);
JR_SLOT(GetDimensionsCount, 61);
JR_SLOT(GetDimensions, 62);
JR_SLOT(GetSymbolicDimensions, 63);
JR_SLOT(GetTensorTypeAndShape, 65);
JR_SLOT(KernelInfoGetAttribute_float, 85);
JR_SLOT(KernelInfoGetAttribute_int64, 86);
JR_SLOT(KernelContext_GetInput, 90);
JR_SLOT(KernelContext_GetOutput, 91);
JR_SLOT(ReleaseStatus, 93);
JR_SLOT(ReleaseTensorTypeAndShapeInfo, 99);
JR_SLOT(ReleaseCustomOpDomain, 101);
JR_SLOT(KernelContext_GetGPUComputeStream, 193);
JR_SLOT(KernelInfo_GetInputCount, 230);
JR_SLOT(KernelInfo_GetInputName, 232);
JR_SLOT(KernelInfo_GetNodeName, 244);
JR_SLOT(ShapeInferContext_GetInputTypeShape, 268);
JR_SLOT(ShapeInferContext_SetOutputTypeShape, 270);
JR_SLOT(SetSymbolicDimensions, 271);
JR_SLOT(KernelContext_ParallelFor, 274);
JR_SLOT(GetTensorElementTypeAndShapeDataReference, 414);
#undef JR_SLOT

static_assert(sizeof(void*) == 8, "only 64-bit targets are supported");
static_assert(sizeof(CustomOp) == 26 * sizeof(void*), "OrtCustomOp has 26 words");
static_assert(offsetof(CustomOp, GetInputMemoryType) == 12 * sizeof(void*), "GetInputMemoryType");
static_assert(offsetof(CustomOp, CreateKernelV2) == 17 * sizeof(void*), "CreateKernelV2");
static_assert(offsetof(CustomOp, GetMayInplace) == 22 * sizeof(void*), "GetMayInplace");
static_assert(sizeof(ElementType) == 4 && sizeof(Characteristic) == 4 && sizeof(MemoryType) == 4,
              "the C enumerations have the size of int");

}  // namespace jr::ort
