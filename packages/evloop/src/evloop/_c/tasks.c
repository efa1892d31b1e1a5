#include "internal.h"

void ev__tasks_init(struct ev_task_list *list) {
    list->head = NULL;
    list->tail = &list->head;
}

void ev__tasks_add(struct ev_task_list *list, struct ev_task *task, ev_task_fn fn) {
    if (task->queued)
        return;
    task->queued = 1;
    task->fn = fn;
    task->next = NULL;
    *list->tail = task;
    list->tail = &task->next;
}

void ev__tasks_take(struct ev_task_list *into, struct ev_task_list *from) {
    ev__tasks_init(into);
    if (from->head)
        *into = *from;
    ev__tasks_init(from);
}

/* Runs what is in the list now; what that adds stays for the next run. A task may free its structure. */
void ev__tasks_run(struct ev_task_list *list, ev_loop *loop) {
    struct ev_task *task = list->head;
    ev__tasks_init(list);
    while (task) {
        struct ev_task *next = task->next;
        task->queued = 0;
        task->fn(loop, task);
        task = next;
    }
}
