// @name@: made by edge-lstm @version@; do not edit.
#include "@name@_model.h"

alignas(16) const unsigned char @name@_model[@bytes@] = {
@array@
};
const unsigned int @name@_model_bytes = @bytes@;
