/* stub_cudnn.c: a libcudnn.so.9 without a GPU, for tests of what surrounds it.
 *
 * It is of version LH_STUB_VERSION (91900) and plans everything with engine
 * LH_STUB_ENGINE (2); its plans' JSON is "{}", and it takes none but that. Built
 * with LACKS_EXECUTE it has no cudnnBackendExecute. */
#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

static int64_t setting(const char *name, int64_t otherwise)
{
	const char *text = getenv(name);

	return text ? atoll(text) : otherwise;
}

size_t cudnnGetVersion(void)
{
	return (size_t)setting("LH_STUB_VERSION", 91900);
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
	(void)status;
	return "the stub's error";
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
	strncpy(message, "the stub's error", max_size);
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
	*handle = malloc(1);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
	free(handle);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
	(void)handle, (void)stream;
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
					   cudnnBackendDescriptor_t *descriptor)
{
	(void)type;
	*descriptor = malloc(1);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
	free(descriptor);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
				       cudnnBackendAttributeName_t name,
				       cudnnBackendAttributeType_t type, int64_t count,
				       const void *elements)
{
	(void)descriptor, (void)type;
	if (name == CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION &&
	    (count != 2 || memcmp(elements, "{}", 2)))
		return CUDNN_STATUS_BAD_PARAM;
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor,
				       cudnnBackendAttributeName_t name,
				       cudnnBackendAttributeType_t type, int64_t wanted,
				       int64_t *count, void *elements)
{
	(void)descriptor, (void)type;
	*count = 1;
	if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX)
		*(int64_t *)elements = setting("LH_STUB_ENGINE", 2);
	else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
		*(int64_t *)elements = 256;
	else if (name == CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION)
		*count = 2;
	if (name == CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION && wanted)
		memcpy(elements, "{}", 2);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
	(void)descriptor;
	return CUDNN_STATUS_SUCCESS;
}

#ifndef LACKS_EXECUTE
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
				  cudnnBackendDescriptor_t pack)
{
	(void)handle, (void)plan, (void)pack;
	return CUDNN_STATUS_SUCCESS;
}
#endif
