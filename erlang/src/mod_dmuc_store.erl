%%% What must outlive a native handle or be known on every node, in Mnesia.
%%%
%%% Consent records, the answers to the support question, and which node owns a link. All tables
%%% are in memory on every node: reads are local and dirty, writes reach the other nodes before
%%% they return, so that a stanza sent after a write finds it everywhere.
-module(mod_dmuc_store).

-export([init/0, clustered/0]).
-export([consent_changed/4, import_consents/2, refresh_consent/4, import_unknown/3,
         consent_event/2, node_down/2, is_of/2]).
-export([put_support/4, get_support/2, forget_support/2]).
-export([claim/2, owner/2, disown/2, release/2]).

-include("mod_dmuc.hrl").

%% `node' is the session's, `writer' the one that changed the record last.
-record(dmuc_consent,
        {key    :: {Room :: binary(), Session :: binary()} | '_',
         host   :: binary() | '_',
         node   :: node() | '_',
         writer :: node() | '_',
         record :: binary() | '_'}).

-record(dmuc_support,
        {key     :: {MucHost :: binary(), Domain :: binary()},
         yes     :: boolean(),
         expires :: integer()}).

-record(dmuc_owner,
        {key  :: {Host :: binary(), Room :: binary()} | '_',
         node :: node() | '_'}).

-spec init() -> ok.
init() ->
    Create = fun(Table, Attributes) ->
                     ejabberd_mnesia:create(?MODULE, Table, [{ram_copies, [node()]},
                                                             {attributes, Attributes}])
             end,
    Create(dmuc_consent, record_info(fields, dmuc_consent)),
    Create(dmuc_support, record_info(fields, dmuc_support)),
    Create(dmuc_owner, record_info(fields, dmuc_owner)),
    ok.

%% Alone, the native handles know everything that the tables do.
-spec clustered() -> boolean().
clustered() ->
    nodes() /= [].

%%%===================================================================
%%% Consent
%%%===================================================================

%% Copies a changed record out of the native replica. Another process may change it meanwhile:
%% whoever writes last must have seen the last state.
-spec consent_changed(#replica{}, binary(), binary(), session | other) -> ok.
consent_changed(Replica, Room, Session, Who) ->
    write_consent(Replica, Room, Session, Who, native(Replica, Room, Session)).

-spec write_consent(#replica{}, binary(), binary(), session | other, binary() | undefined) -> ok.
write_consent(#replica{host = Host} = Replica, Room, Session, Who, Record) ->
    Key = {Room, Session},
    case Record of
        undefined ->
            sync(fun() -> sign(mnesia:dirty_read(dmuc_consent, Key)),
                          mnesia:delete({dmuc_consent, Key})
                 end);
        _ ->
            Node = case {Who, mnesia:dirty_read(dmuc_consent, Key)} of
                       {other, [#dmuc_consent{node = Old}]} -> Old;
                       _ -> node()
                   end,
            sync(fun() -> mnesia:write(#dmuc_consent{key = Key, host = Host, node = Node,
                                                     writer = node(), record = Record})
                 end)
    end,
    case native(Replica, Room, Session) of
        Record -> ok;
        Newer -> write_consent(Replica, Room, Session, Who, Newer)
    end.

%% The other nodes see who deletes a record by who wrote it last.
-spec sign([#dmuc_consent{}]) -> ok.
sign([#dmuc_consent{writer = Writer} = Record]) when Writer /= node() ->
    mnesia:write(Record#dmuc_consent{writer = node()});
sign(_) ->
    ok.

-spec native(#replica{}, binary(), binary()) -> binary() | undefined.
native(#replica{handle = Handle}, Room, Session) ->
    mod_dmuc_nif:replica_consent(Handle, Room, Session).

%% At load: what an earlier load or another node knew.
-spec import_consents(#replica{}, mod_dmuc_nif:millis()) -> non_neg_integer().
import_consents(#replica{host = Host} = Replica, Now) ->
    Records = mnesia:dirty_match_object(dmuc_consent, #dmuc_consent{host = Host, _ = '_'}),
    lists:foreach(
      fun(#dmuc_consent{key = {Room, Session}, record = Record}) ->
              import(Replica, Now, Room, Session, Record)
      end, Records),
    length(Records).

%% Before a change on this node: the newest state may be another node's.
-spec refresh_consent(#replica{}, mod_dmuc_nif:millis(), binary(), binary()) -> ok.
refresh_consent(Replica, Now, Room, Session) ->
    case clustered() of
        true -> import(Replica, Now, Room, Session, stored(Room, Session));
        false -> ok
    end.

%% Sessions that an element names and that only other nodes have told of so far.
-spec import_unknown(#replica{}, mod_dmuc_nif:millis(), {binary(), [binary()]}) -> ok.
import_unknown(Replica, Now, {Room, Sessions}) ->
    lists:foreach(
      fun(Session) ->
              case stored(Room, Session) of
                  undefined -> ok;
                  Record -> import(Replica, Now, Room, Session, Record)
              end
      end, Sessions).

-spec stored(binary(), binary()) -> binary() | undefined.
stored(Room, Session) ->
    case mnesia:dirty_read(dmuc_consent, {Room, Session}) of
        [#dmuc_consent{record = Record}] -> Record;
        [] -> undefined
    end.

-spec import(#replica{}, mod_dmuc_nif:millis(), binary(), binary(), binary() | undefined) -> ok.
import(#replica{handle = Handle}, Now, Room, Session, Record) ->
    mod_dmuc_nif:replica_import_consent(Handle, Now, Room, Session, Record).

%% A detailed Mnesia event of another node's change.
-spec consent_event(#replica{}, tuple()) -> ok.
consent_event(#replica{host = Host} = Replica,
              {write, dmuc_consent, #dmuc_consent{host = Host, writer = Writer,
                                                  key = {Room, Session}}, _, _})
  when Writer /= node() ->
    %% Not the event's value: a newer one may be in the table already.
    import(Replica, mod_dmuc:now(), Room, Session, stored(Room, Session));
consent_event(#replica{host = Host} = Replica, {delete, dmuc_consent, _, Old, _}) ->
    [import(Replica, mod_dmuc:now(), Room, Session, stored(Room, Session))
     || #dmuc_consent{host = H, writer = Writer, key = {Room, Session}} <- Old,
        H == Host, Writer /= node()],
    ok;
consent_event(_Replica, _Event) ->
    ok.

%% A node has gone, and with it its links and its sessions. Gives those sessions whose rooms this
%% node is to tell: one node for each room, that of the link if there is one.
-spec node_down(#replica{}, node()) -> [{Room :: binary(), Session :: binary()}].
node_down(#replica{host = Host} = Replica, Node) ->
    Links = mnesia:dirty_match_object(dmuc_owner, #dmuc_owner{node = Node, _ = '_'}),
    lists:foreach(fun mnesia:dirty_delete_object/1, Links),
    First = lists:min(lists:delete(Node, mnesia:system_info(running_db_nodes))),
    Teller = fun(Room) ->
                     case mnesia:dirty_read(dmuc_owner, {Host, Room}) of
                         [#dmuc_owner{node = Owner}] -> Owner;
                         [] -> First
                     end
             end,
    Gone = mnesia:dirty_match_object(dmuc_consent,
                                     #dmuc_consent{host = Host, node = Node, _ = '_'}),
    Mine = [Key || #dmuc_consent{key = {Room, _} = Key} <- Gone, Teller(Room) == node()],
    [import(Replica, mod_dmuc:now(), Room, Session, stored(Room, Session))
     || {Room, Session} <- Mine],
    Mine.

%% Whether nobody has written it since its session's node was lost.
-spec is_of(node(), {binary(), binary()}) -> boolean().
is_of(Node, Key) ->
    case mnesia:dirty_read(dmuc_consent, Key) of
        [#dmuc_consent{node = Node}] -> true;
        _ -> false
    end.

%%%===================================================================
%%% Support
%%%===================================================================

-spec put_support(binary(), binary(), boolean(), mod_dmuc_nif:millis()) -> ok.
put_support(MucHost, Domain, Yes, Remaining) ->
    mnesia:dirty_write(#dmuc_support{key = {MucHost, Domain}, yes = Yes,
                                     expires = erlang:system_time(millisecond) + Remaining}).

%% An answer that another node got, and for how long it is good.
-spec get_support(binary(), binary()) -> {boolean(), mod_dmuc_nif:millis()} | undefined.
get_support(MucHost, Domain) ->
    case mnesia:dirty_read(dmuc_support, {MucHost, Domain}) of
        [#dmuc_support{yes = Yes, expires = Expires}] ->
            case Expires - erlang:system_time(millisecond) of
                Remaining when Remaining > 0 -> {Yes, Remaining};
                _ -> undefined
            end;
        [] ->
            undefined
    end.

-spec forget_support(binary(), binary()) -> ok.
forget_support(MucHost, Domain) ->
    mnesia:dirty_delete(dmuc_support, {MucHost, Domain}).

%%%===================================================================
%%% Ownership of links
%%%===================================================================

%% From now on this node holds the window of the link.
-spec claim(binary(), binary()) -> ok.
claim(Host, Room) ->
    case mnesia:dirty_read(dmuc_owner, {Host, Room}) of
        [#dmuc_owner{node = Node}] when Node == node() ->
            ok;
        _ ->
            sync(fun() -> mnesia:write(#dmuc_owner{key = {Host, Room}, node = node()}) end)
    end.

%% The other node to which envelopes of this link must go.
-spec owner(binary(), binary()) -> node() | undefined.
owner(Host, Room) ->
    case mnesia:dirty_read(dmuc_owner, {Host, Room}) of
        [#dmuc_owner{node = Node}] when Node /= node() ->
            case lists:member(Node, nodes()) of
                true -> Node;
                false -> undefined
            end;
        _ ->
            undefined
    end.

%% The link is no more.
-spec disown(binary(), binary()) -> ok.
disown(Host, Room) ->
    mnesia:dirty_delete(dmuc_owner, {Host, Room}).

%% This node holds no link of the host any more.
-spec release(binary(), node()) -> ok.
release(Host, Node) ->
    Links = mnesia:dirty_match_object(dmuc_owner, #dmuc_owner{node = Node, _ = '_'}),
    [mnesia:dirty_delete_object(Link) || #dmuc_owner{key = {H, _}} = Link <- Links, H == Host],
    ok.

-spec sync(fun(() -> ok)) -> ok.
sync(Fun) ->
    mnesia:sync_dirty(Fun).
