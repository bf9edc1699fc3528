%%% The process of a virtual host: it owns the native handles that are not a room's, the timers, the
%%% events of Mnesia, and the answers to our IQs.
-module(mod_dmuc_server).
-behaviour(gen_server).

-export([start/2, stop/1, quiesce/1, reload/2, host/1, links/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_dmuc.hrl").

%% Between two looks at the records that the core has logged.
-define(DRAIN, timer:seconds(1)).
-define(DRAIN_MOST, 200).
%% For all rooms together to close their links.
-define(CLOSE_TIMEOUT, timer:seconds(10)).
-define(REPAIR_AFTER, timer:seconds(5)).
%% What the core wants done later without having been asked for actions waits this long at most.
-define(IDLE, timer:seconds(60)).

-record(state,
        {host         :: binary(),
         opts         :: gen_mod:opts(),
         shared       :: mod_dmuc_nif:native(),
         muc_hosts = [] :: [binary()],
         replica      :: #replica{} | undefined,
         rooms = #{}  :: #{pid() => {reference(), jid(), mod_dmuc_nif:native()}},
         wake         :: {mod_dmuc_nif:millis(), reference()} | undefined,
         quiet = false :: boolean()}).

-type state() :: #state{}.

%%%===================================================================
%%% API
%%%===================================================================
-spec start(binary(), gen_mod:opts()) -> {ok, pid()} | {error, term()}.
start(Host, Opts) ->
    gen_mod:start_child(?MODULE, Host, Opts).

%% Ends every link, then the process.
-spec stop(binary()) -> ok.
stop(Host) ->
    quiesce(Host),
    gen_mod:stop_child(?MODULE, Host),
    ok.

%% All rooms and users of the host are with plain MUC when this returns.
-spec quiesce(binary()) -> ok.
quiesce(Host) ->
    try gen_server:call(name(Host), quiesce, ?CLOSE_TIMEOUT + timer:seconds(5))
    catch exit:_ -> ok
    end.

%% Other options while everything goes on.
-spec reload(binary(), gen_mod:opts()) -> ok | {error, binary()} | not_running.
reload(Host, Opts) ->
    call(Host, {reload, Opts}, ?CLOSE_TIMEOUT + timer:seconds(5)).

%% Its options and counters, the MUC services whose rooms use links, and whether it accepts any.
-spec host(binary()) -> {mod_dmuc_nif:native(), [binary()], boolean()} | not_running.
host(Host) ->
    call(Host, host, timer:seconds(5)).

%% The links of a room, or of all and of the users.
-spec links(binary(), all | binary()) -> [mod_dmuc_nif:row()] | not_running.
links(Host, Room) ->
    call(Host, {links, Room}, timer:seconds(30)).

-spec call(binary(), term(), timeout()) -> term().
call(Host, Request, Timeout) ->
    try gen_server:call(name(Host), Request, Timeout)
    catch exit:{Reason, _} when Reason == noproc; Reason == normal; Reason == shutdown ->
            not_running
    end.

-spec name(binary()) -> atom().
name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%%%===================================================================
%%% gen_server callbacks
%%%===================================================================
-spec init([binary() | gen_mod:opts()]) -> {ok, state()} | {stop, term()}.
init([Host, Opts]) ->
    process_flag(trap_exit, true),
    case mod_dmuc_nif:shared_new(mod_dmuc_opts:native(Opts)) of
        {ok, Shared} ->
            mod_dmuc_store:init(),
            mod_dmuc_form:init(),
            _ = mnesia:subscribe(system),
            _ = mnesia:subscribe({table, dmuc_consent, detailed}),
            _ = ets:new(name(Host), [named_table, public, {write_concurrency, true}]),
            State = start_replica(start_primaries(#state{host = Host, opts = Opts,
                                                         shared = Shared})),
            mod_dmuc:add_hooks(Host),
            self() ! {find_rooms, State#state.muc_hosts},
            self() ! announce,
            self() ! drain,
            {ok, State};
        {error, Text} ->
            {stop, Text}
    end.

-spec handle_call(term(), {pid(), term()}, state()) -> {reply, term(), state()} | {noreply, state()}.
handle_call(quiesce, _From, #state{quiet = true} = State) ->
    {reply, ok, State};
handle_call(quiesce, _From, State) ->
    {reply, ok, do_quiesce(State)};
handle_call({reload, Opts}, _From, #state{shared = Shared} = State) ->
    case mod_dmuc_nif:shared_set(Shared, mod_dmuc_opts:native(Opts)) of
        ok -> {reply, ok, other_options(State#state{opts = Opts})};
        {error, _} = Error -> {reply, Error, State}
    end;
handle_call(host, _From, #state{shared = Shared, muc_hosts = MucHosts, replica = Replica} = State) ->
    {reply, {Shared, MucHosts, Replica /= undefined}, State};
handle_call({links, Wanted}, From, #state{rooms = Rooms, replica = Replica} = State) ->
    %% Rooms are asked elsewhere: they may be busy, and this process must not wait for them.
    Local = [{Pid, Jid} || {Pid, {_, Jid, _}} <- maps:to_list(Rooms),
                           Wanted == all orelse Wanted == jid:encode(Jid)],
    spawn(fun() -> gen_server:reply(From, collect_links(Local, Replica, Wanted)) end),
    {noreply, State};
handle_call(Request, From, State) ->
    ?WARNING_MSG("Unexpected call from ~p: ~p", [From, Request]),
    {noreply, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast({room, Pid, Jid, Handle}, #state{rooms = Rooms} = State) ->
    Ref = case Rooms of
              #{Pid := {Old, _, _}} -> Old;
              _ -> monitor(process, Pid)
          end,
    {noreply, State#state{rooms = Rooms#{Pid => {Ref, Jid, Handle}}}};
handle_cast({wake, At}, State) ->
    {noreply, arm(At, State)};
handle_cast({setup, IQ}, #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_replica:setup(Replica, IQ) end, State);
handle_cast({envelope, Pkt, Known}, #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_replica:envelope(Replica, Pkt, Known, here) end, State);
handle_cast({passed_on, Pkt}, #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_replica:envelope(Replica, Pkt, #{}, may_forward) end, State);
handle_cast({returned, Pkt}, #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_replica:returned(Replica, Pkt) end, State);
handle_cast({broken, Gen, Reason}, #state{replica = #replica{gen = Gen} = Replica} = State) ->
    _ = erlang:send_after(?REPAIR_AFTER, self(), repair),
    %% The rooms are told what has been delivered. Of that a handle may know only half after a panic.
    case Reason of
        nif_panicked ->
            Dropped = drop_replica(State),
            mod_dmuc_replica:take_leave(Replica),
            {noreply, Dropped};
        _ ->
            {noreply, close_replica(State)}
    end;
%% For a replica that is off, or no longer the one that broke.
handle_cast(Late, State) when element(1, Late) == broken; element(1, Late) == setup;
                              element(1, Late) == envelope; element(1, Late) == returned;
                              element(1, Late) == passed_on ->
    {noreply, State};
handle_cast(Msg, State) ->
    ?WARNING_MSG("Unexpected cast: ~p", [Msg]),
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({tell, Pid, Message}, State) ->
    mod_dmuc_primary:tell(Pid, Message),
    {noreply, State};
handle_info({iq_reply, Reply, {setup, Pid, Room, Domain, Id}}, State) ->
    mod_dmuc_primary:tell(Pid, {Room, {setup_result, Domain, Id, setup_body(Reply)}}),
    {noreply, State};
handle_info({iq_reply, Reply, {support, MucHost, Domain}}, State) ->
    safely(fun() ->
                   case mod_dmuc_primary:find(MucHost) of
                       undefined -> ok;
                       Primary -> mod_dmuc_primary:support_answer(Primary, Domain, Reply)
                   end
           end, State);
handle_info(tick, #state{replica = #replica{handle = Handle} = Replica} = State) ->
    safely(fun() ->
                   Actions = mod_dmuc_nif:replica_tick(Handle, mod_dmuc:now()),
                   mod_dmuc_replica:perform(Replica, Actions)
           end, arm(mod_dmuc:now() + ?IDLE, State#state{wake = undefined}));
handle_info(announce, #state{replica = #replica{handle = Handle} = Replica, quiet = false} =
                State) ->
    safely(fun() ->
                   Actions = mod_dmuc_nif:replica_announce(Handle, mod_dmuc:now()),
                   mod_dmuc_replica:perform(Replica, Actions)
           end, State);
handle_info({find_rooms, MucHosts}, #state{quiet = false} = State) ->
    Server = self(),
    [spawn(fun() -> find_rooms(Server, MucHost) end) || MucHost <- MucHosts],
    {noreply, State};
handle_info({reopen, Pid, Room}, #state{quiet = false} = State) ->
    spawn(fun() -> take_over(Pid, Room, reopen) end),
    {noreply, State};
handle_info({session_gone, Session}, #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_replica:session_gone(Replica, Session) end, State);
handle_info(repair, #state{quiet = false, replica = undefined} = State) ->
    self() ! announce,
    {noreply, start_replica(State)};
handle_info(drain, #state{shared = Shared} = State) ->
    drain(),
    ok = mod_dmuc_nif:sample(Shared, mod_dmuc:now()),
    _ = erlang:send_after(?DRAIN, self(), drain),
    {noreply, State};
handle_info({mnesia_table_event, Event}, #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_store:consent_event(Replica, Event) end, State);
handle_info({mnesia_system_event, {mnesia_down, Node}},
            #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_replica:node_down(Replica, Node) end, State);
handle_info({sessions_lost, Node, Keys, Tries}, #state{replica = #replica{} = Replica} = State) ->
    safely(fun() -> mod_dmuc_replica:sessions_lost(Replica, Node, Keys, Tries) end, State);
handle_info({'DOWN', _Ref, process, Pid, _Reason}, #state{rooms = Rooms} = State) ->
    case maps:take(Pid, Rooms) of
        {{_, #jid{lserver = MucHost} = Jid, Handle}, Rest} ->
            safely(fun() ->
                           case mod_dmuc_primary:find(MucHost) of
                               undefined -> ok;
                               Primary -> mod_dmuc_primary:ended(Primary, Jid, Handle)
                           end
                   end, State#state{rooms = Rest});
        error ->
            {noreply, State}
    end;
%% Late timers, other events of Mnesia, and what belongs to a role that is off.
handle_info(_Info, State) ->
    {noreply, State}.

-spec terminate(term(), state()) -> ok.
terminate(_Reason, #state{host = Host} = State) ->
    _ = do_quiesce(State),
    mod_dmuc:delete_hooks(Host),
    drain().

-spec code_change(term(), state(), term()) -> {ok, state()}.
code_change(_OldVsn, State, _Extra) ->
    {ok, State}.

%%%===================================================================
%%% Start and end of the roles
%%%===================================================================
-spec start_primaries(state()) -> state().
start_primaries(#state{shared = Shared, host = Host} = State) ->
    MucHosts = wanted_hosts(State),
    lists:foreach(fun(MucHost) -> start_primary(MucHost, Host, Shared) end, MucHosts),
    State#state{muc_hosts = MucHosts}.

-spec start_primary(binary(), binary(), mod_dmuc_nif:native()) -> ok.
start_primary(MucHost, Host, Shared) ->
    mod_dmuc_primary:register(
      #primary{host = MucHost, server_host = Host, server = name(Host),
               gen = make_ref(), shared = Shared,
               support = mod_dmuc_nif:support_new(mod_dmuc:seed(), Shared)}).

%% Roles that are wanted no more end, new ones begin, and what is due under the new options is done.
-spec other_options(state()) -> state().
other_options(#state{quiet = true} = State) ->
    State;
other_options(#state{host = Host, opts = Opts, shared = Shared, muc_hosts = Old, rooms = Rooms} =
                  State0) ->
    Wanted = wanted_hosts(State0),
    {Kept, Gone} = lists:partition(
                     fun({_, {_, #jid{lserver = MucHost}, _}}) -> lists:member(MucHost, Wanted) end,
                     maps:to_list(Rooms)),
    close_rooms([{Pid, Jid} || {Pid, {_, Jid, _}} <- Gone]),
    [demonitor(Ref, [flush]) || {_, {Ref, _, _}} <- Gone],
    lists:foreach(fun mod_dmuc_primary:unregister/1, Old -- Wanted),
    lists:foreach(fun(MucHost) -> start_primary(MucHost, Host, Shared) end, Wanted -- Old),
    [mod_dmuc_primary:tell(Pid, {Jid, tick}) || {Pid, {_, Jid, _}} <- Kept],
    self() ! {find_rooms, Wanted -- Old},
    self() ! tick,
    State = State0#state{muc_hosts = Wanted, rooms = maps:from_list(Kept)},
    case {gen_mod:get_opt(replica, Opts), State#state.replica} of
        {true, undefined} -> self() ! announce, start_replica(State);
        {false, #replica{}} -> close_replica(State);
        _ -> State
    end.

-spec wanted_hosts(state()) -> [binary()].
wanted_hosts(#state{host = Host, opts = Opts}) ->
    All = case gen_mod:is_loaded(Host, mod_muc) of
              true -> gen_mod:get_module_opt_hosts(Host, mod_muc);
              false -> []
          end,
    case gen_mod:get_opt(muc_hosts, Opts) of
        all -> All;
        Some -> [H || H <- Some, is_served(Host, H, All)]
    end.

-spec is_served(binary(), binary(), [binary()]) -> boolean().
is_served(Host, MucHost, All) ->
    lists:member(MucHost, All) orelse
        begin
            ?WARNING_MSG("mod_dmuc on ~ts: ~ts in muc_hosts is not a host of mod_muc",
                         [Host, MucHost]),
            false
        end.

-spec start_replica(state()) -> state().
start_replica(#state{host = Host, opts = Opts, shared = Shared} = State) ->
    case gen_mod:get_opt(replica, Opts) of
        true ->
            Replica = #replica{host = Host, server = name(Host), gen = make_ref(),
                               handle = mod_dmuc_nif:replica_new(Host, mod_dmuc:seed(), Shared)},
            mod_dmuc_store:import_consents(Replica, mod_dmuc:now()),
            mod_dmuc_replica:register(Replica),
            arm(mod_dmuc:now() + ?IDLE, State#state{replica = Replica, wake = undefined});
        false ->
            State
    end.

-spec drop_replica(state()) -> state().
drop_replica(#state{host = Host} = State) ->
    mod_dmuc_replica:unregister(Host),
    mod_dmuc_store:release(Host, node()),
    State#state{replica = undefined}.

%% First the replica, whose rooms elsewhere must send plainly again, then the own rooms.
-spec do_quiesce(state()) -> state().
do_quiesce(#state{quiet = true} = State) ->
    State;
do_quiesce(#state{muc_hosts = MucHosts, rooms = Rooms} = State0) ->
    State = close_replica(State0),
    close_rooms([{Pid, Jid} || {Pid, {_, Jid, _}} <- maps:to_list(Rooms)]),
    lists:foreach(fun mod_dmuc_primary:unregister/1, MucHosts),
    State#state{quiet = true, rooms = #{}}.

%% The native replica refuses from its close on; what still reaches the hook before it is gone from
%% the registry is refused by it, and afterwards by ejabberd itself.
-spec close_replica(state()) -> state().
close_replica(#state{replica = undefined} = State) ->
    State;
close_replica(#state{replica = #replica{handle = Handle} = Replica} = State) ->
    try mod_dmuc_replica:perform(Replica, mod_dmuc_nif:replica_close(Handle, mod_dmuc:now()))
    catch Class:Reason:Stack -> mod_dmuc:fault("fault at the replica", {Class, Reason, Stack})
    end,
    drop_replica(State).

%% Every room closes its handle itself, after what it has held.
-spec close_rooms([{pid(), jid()}]) -> ok.
close_rooms(Rooms) ->
    Deadline = mod_dmuc:now() + ?CLOSE_TIMEOUT,
    Waiting = [begin
                   Ref = monitor(process, Pid),
                   mod_dmuc_primary:tell(Pid, {Jid, {close, {self(), Ref}}}),
                   Ref
               end || {Pid, Jid} <- Rooms],
    lists:foreach(
      fun(Ref) ->
              receive
                  {Ref, closed} -> demonitor(Ref, [flush]);
                  {'DOWN', Ref, process, _, _} -> ok
              after max(0, Deadline - mod_dmuc:now()) ->
                      demonitor(Ref, [flush])
              end
      end, Waiting).

%%%===================================================================
%%% Rooms that were there before
%%%===================================================================
-spec find_rooms(pid(), binary()) -> ok.
find_rooms(_Server, MucHost) ->
    lists:foreach(
      fun({Name, _, Pid}) when node(Pid) == node() ->
              take_over(Pid, mod_dmuc_xml:jid({Name, MucHost, <<>>}), open);
         (_) ->
              ok
      end, mod_muc:get_online_rooms(MucHost)).

%% The room notes who comes and goes from the first marker on, so what changes between the snapshot
%% and the second marker is known to it.
-spec take_over(pid(), jid(), open | reopen) -> ok.
take_over(Pid, #jid{luser = Name, lserver = MucHost} = Room, How) ->
    try
        mod_dmuc_primary:tell(Pid, {Room, How}),
        Jids = [mod_dmuc_xml:ljid(jid:decode(Jid))
                || {Jid, _Nick, _Role} <- mod_muc_admin:get_room_occupants(Name, MucHost)],
        Remote = [Jid || {_, S, R} = Jid <- Jids, R /= <<>>, not ejabberd_router:is_my_route(S)],
        mod_dmuc_primary:tell(Pid, {Room, {occupants, Remote}})
    catch Class:Reason:Stack ->
            %% It has ended meanwhile, or is too busy to answer: it stays with plain MUC for those
            %% whom it had before.
            ?DEBUG("mod_dmuc: no occupants of ~ts: ~p", [jid:encode(Room), {Class, Reason, Stack}]),
            ok
    end.

%%%===================================================================
%%% Internals
%%%===================================================================
-spec arm(mod_dmuc_nif:millis(), state()) -> state().
arm(At, #state{wake = {Earlier, _}} = State) when Earlier =< At ->
    State;
arm(At, #state{wake = Old} = State) ->
    case Old of
        {_, Timer} -> erlang:cancel_timer(Timer);
        undefined -> ok
    end,
    Timer1 = erlang:send_after(max(0, At - mod_dmuc:now()), self(), tick),
    State#state{wake = {At, Timer1}}.

-spec setup_body(iq() | timeout) -> mod_dmuc_nif:answer().
setup_body(#iq{type = result} = IQ) ->
    case mod_dmuc_xml:element(IQ) of
        undefined -> undefined;
        El -> element(1, mod_dmuc_xml:incoming(El))
    end;
setup_body(#iq{type = error} = IQ) ->
    case xmpp:get_error(IQ) of
        #stanza_error{reason = Reason, sub_els = Els} when is_atom(Reason) ->
            {refused, [Name || #xmlel{name = Name} <- Els] ++ [atom_to_binary(Reason, utf8)]};
        _ ->
            {refused, []}
    end;
setup_body(_) ->
    undefined.

-spec safely(fun(() -> term()), state()) -> {noreply, state()}.
safely(Fun, #state{replica = Replica} = State) ->
    try Fun() of
        _ -> {noreply, State}
    catch Class:Reason:Stack ->
            mod_dmuc:fault("fault in the process of a virtual host", {Class, Reason, Stack}),
            case Replica of
                #replica{gen = Gen} -> gen_server:cast(self(), {broken, Gen, Reason});
                undefined -> ok
            end,
            {noreply, State}
    end.

-spec drain() -> ok.
drain() ->
    {Records, Dropped} = mod_dmuc_nif:log_drain(?DRAIN_MOST, ejabberd_logger:get() == debug),
    lists:foreach(fun log/1, Records),
    case Dropped of
        0 -> ok;
        _ -> ?WARNING_MSG("mod_dmuc: ~B log records were dropped", [Dropped])
    end.

-spec log({error | warning | info | debug, binary()}) -> ok.
log({error, Text}) -> ?ERROR_MSG("mod_dmuc: ~ts", [Text]);
log({warning, Text}) -> ?WARNING_MSG("mod_dmuc: ~ts", [Text]);
log({info, Text}) -> ?INFO_MSG("mod_dmuc: ~ts", [Text]);
log({debug, Text}) -> ?DEBUG("mod_dmuc: ~ts", [Text]).

%% All rooms are asked at once: one that is busy does not keep the others waiting.
-spec collect_links([{pid(), jid()}], #replica{} | undefined, all | binary()) ->
          [mod_dmuc_nif:row()].
collect_links(Rooms, Replica, Wanted) ->
    Asked = [ask_links(Pid, Jid) || {Pid, Jid} <- Rooms],
    Deadline = mod_dmuc:now() + timer:seconds(2),
    Own = lists:append([room_links(Ref, Deadline) || Ref <- Asked]),
    Others = case Replica of
                 #replica{handle = Handle} -> mod_dmuc_nif:replica_links(Handle, mod_dmuc:now());
                 undefined -> []
             end,
    Own ++ [Row || Row <- Others, Wanted == all orelse lists:member(Wanted, Row)].

-spec ask_links(pid(), jid()) -> reference().
ask_links(Pid, Jid) ->
    Ref = monitor(process, Pid),
    mod_dmuc_primary:tell(Pid, {Jid, {links, {self(), Ref}}}),
    Ref.

-spec room_links(reference(), mod_dmuc_nif:millis()) -> [mod_dmuc_nif:row()].
room_links(Ref, Deadline) ->
    receive
        {Ref, Rows} -> demonitor(Ref, [flush]), Rows;
        {'DOWN', Ref, process, _, _} -> []
    after max(0, Deadline - mod_dmuc:now()) ->
            demonitor(Ref, [flush]),
            []
    end.
