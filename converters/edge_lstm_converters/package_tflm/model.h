// @name@: made by edge-lstm @version@; do not edit.
#ifndef EDGE_LSTM_@name@_MODEL_H
#define EDGE_LSTM_@name@_MODEL_H

// The .tflite file; it must stay where it is as long as an interpreter uses it.
extern const unsigned char @name@_model[];
extern const unsigned int @name@_model_bytes;

// @arena_text@
// A 32-bit core takes less of it for pointers; optimized kernels such as CMSIS-NN's take more for
// scratch. Ask the interpreter on the device: arena_used_bytes().
@arena@

// The operators of the model and no other: tflite::MicroMutableOpResolver<@name@_OPERATORS>.
#define @name@_OPERATORS @operator_count@
#define @name@_ADD_OPERATORS(resolver) \
@operators@

#endif
