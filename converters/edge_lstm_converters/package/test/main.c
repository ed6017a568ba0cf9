/* Runs the model's own test: known answers, and the same ones from a new start. */
#include "@name@.h"

#include <stdio.h>

int main(void)
{
    static @name@_state_t state;
    const int wrong = @name@_selftest(&state);
    printf("@name@ %s, profile %s: %s\n", @name@_VERSION, @name@_PROFILE, wrong ? "FAILED" : "passed");
    return wrong;
}
