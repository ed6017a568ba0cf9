/* el_call: one step of a library made by edge-lstm, called from Python in about 0.1 us.
 *
 * Stepper(step, session, batch, size, format, make, fallback, release)(x) -> result
 *
 * x is any C-contiguous buffer [batch, size] (or [batch], where size is 0) of the format; for any
 * other object fallback(x) is returned. make() gives a new array for a result. A result that
 * nobody else holds any more is used again, so a loop that lets go of its results allocates
 * nothing. With release, other threads run meanwhile.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#define POOL 4

typedef int32_t (*step_t)(void *session, const void *x, void *y);

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    step_t step;
    void *session;
    Py_ssize_t batch, size;
    char format;
    int release;
    PyObject *make, *fallback;
    PyObject *pool[POOL];
    void *data[POOL];
} stepper_t;

/* Put a new array into a place of the pool; return 0, or -1 with an error set. */
static int renew(stepper_t *self, int place)
{
    Py_buffer view;
    PyObject *made = PyObject_CallNoArgs(self->make);
    if (made == NULL) {
        return -1;
    }
    if (PyObject_GetBuffer(made, &view, PyBUF_WRITABLE) < 0) {
        Py_DECREF(made);
        return -1;
    }
    Py_XSETREF(self->pool[place], made);
    self->data[place] = view.buf;
    PyBuffer_Release(&view);
    return 0;
}

static int fits(const stepper_t *self, const Py_buffer *view)
{
    if (view->format == NULL || view->format[0] != self->format || view->format[1] != 0) {
        return 0;
    }
    if (self->size == 0) {
        return view->ndim == 1 && view->shape[0] == self->batch;
    }
    return view->ndim == 2 && view->shape[0] == self->batch && view->shape[1] == self->size;
}

static PyObject *stepper_call(PyObject *object, PyObject *const *arguments, size_t flags,
    PyObject *names)
{
    stepper_t *self = (stepper_t *)object;
    Py_buffer view;
    int place = 0;
    int32_t failed;
    if (PyVectorcall_NARGS(flags) != 1 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "step() takes one argument");
        return NULL;
    }
    if (PyObject_GetBuffer(arguments[0], &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) {
        PyErr_Clear();
        return PyObject_CallOneArg(self->fallback, arguments[0]);
    }
    if (!fits(self, &view)) {
        PyBuffer_Release(&view);
        return PyObject_CallOneArg(self->fallback, arguments[0]);
    }
    while (place < POOL && Py_REFCNT(self->pool[place]) > 1) {
        place++;
    }
    if (place == POOL) {
        place = 0;
        if (renew(self, place) < 0) {
            PyBuffer_Release(&view);
            return NULL;
        }
    }
    PyObject *result = Py_NewRef(self->pool[place]);
    void *data = self->data[place];
    if (self->release) {
        Py_BEGIN_ALLOW_THREADS
        failed = self->step(self->session, view.buf, data);
        Py_END_ALLOW_THREADS
    } else {
        failed = self->step(self->session, view.buf, data);
    }
    PyBuffer_Release(&view);
    if (failed) {
        Py_DECREF(result);
        return PyErr_NoMemory();
    }
    return result;
}

static int stepper_traverse(PyObject *object, visitproc visit, void *arg)
{
    stepper_t *self = (stepper_t *)object;
    Py_VISIT(self->make);
    Py_VISIT(self->fallback);
    return 0;
}

static int stepper_clear(PyObject *object)
{
    stepper_t *self = (stepper_t *)object;
    Py_CLEAR(self->make);
    Py_CLEAR(self->fallback);
    return 0;
}

static void stepper_free(PyObject *object)
{
    stepper_t *self = (stepper_t *)object;
    PyObject_GC_UnTrack(object);
    stepper_clear(object);
    for (int k = 0; k < POOL; k++) {
        Py_XDECREF(self->pool[k]);
    }
    Py_TYPE(object)->tp_free(object);
}

static PyObject *stepper_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    unsigned long long step, session;
    Py_ssize_t batch, size;
    int format, release;
    PyObject *make, *fallback;
    (void)keywords;
    if (!PyArg_ParseTuple(arguments, "KKnnCOOp", &step, &session, &batch, &size, &format, &make,
            &fallback, &release)) {
        return NULL;
    }
    stepper_t *self = (stepper_t *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->call = stepper_call;
    self->step = (step_t)(uintptr_t)step;
    self->session = (void *)(uintptr_t)session;
    self->batch = batch;
    self->size = size;
    self->format = (char)format;
    self->release = release;
    self->make = Py_NewRef(make);
    self->fallback = Py_NewRef(fallback);
    for (int k = 0; k < POOL; k++) {
        if (renew(self, k) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static PyTypeObject stepper_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "el_call.Stepper",
    .tp_doc = "Runs one step of a session.",
    .tp_basicsize = sizeof(stepper_t),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(stepper_t, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = stepper_new,
    .tp_traverse = stepper_traverse,
    .tp_clear = stepper_clear,
    .tp_dealloc = stepper_free,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "el_call",
    .m_size = -1,
};

__attribute__((visibility("default"))) PyObject *PyInit_el_call(void);

__attribute__((visibility("default"))) PyObject *PyInit_el_call(void)
{
    if (PyType_Ready(&stepper_type) < 0) {
        return NULL;
    }
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyModule_AddObjectRef(made, "Stepper", (PyObject *)&stepper_type) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
